package auth

import (
	stdjson "encoding/json"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	expLeeway  = 5 * time.Second  // a token may be used so long after its end
	skewLeeway = 30 * time.Second // an issuer's clock may be so far ahead of ours

	maxSubject = 256  // bytes
	maxInfo    = 1024 // bytes, compacted

	lastSecond = 253402300799 // of the year 9999, the last that RFC 3339 can write
)

// Claims are what a verified token says.
type Claims struct {
	Subject  string
	Expires  time.Time // use it no longer than this; Verify allows 5 s for skew
	IssuedAt time.Time // zero where the token does not say

	Subscribe Patterns
	Publish   Patterns
	Admin     bool // may use what is for administrators; says nothing of rooms

	Info stdjson.RawMessage // shown with presence: compact JSON of at most 1 KiB, or nil
}

// CanSubscribe reports whether the room may be read: its events, history and members.
func (c Claims) CanSubscribe(room string) bool { return c.Subscribe.Match(room) }

// CanPublish reports whether the room may be written to.
func (c Claims) CanPublish(room string) bool { return c.Publish.Match(room) }

// payload is the wire form of the claims, for reading as for making them.
type payload struct {
	Issuer    string         `json:"iss,omitempty"`
	Subject   string         `json:"sub"`
	Audience  jsontext.Value `json:"aud,omitzero"` // a string or a list of them
	Expires   *float64       `json:"exp,omitzero"`
	NotBefore *float64       `json:"nbf,omitzero"`
	IssuedAt  *float64       `json:"iat,omitzero"`
	Sluice    rights         `json:"sluice"`
}

type rights struct {
	Subscribe []string       `json:"subscribe,omitempty"`
	Publish   []string       `json:"publish,omitempty"`
	Admin     bool           `json:"admin,omitzero"`
	Info      jsontext.Value `json:"info,omitzero"`
}

// registered are the claims that decide whether a token counts here and now.
type registered struct {
	issuer    string
	audience  []string // nil if the token has none
	expires   time.Time
	notBefore time.Time // zero if the token has none, as is issuedAt
	issuedAt  time.Time
}

// parseClaims reads a payload and checks all of it that does not depend on the time
// or on who we are.
func parseClaims(b []byte) (registered, Claims, error) {
	none := func(why string) (registered, Claims, error) { return registered{}, Claims{}, invalid(why) }
	var p payload
	if err := json.Unmarshal(b, &p); err != nil {
		return none("the claims are not what they should be: " + jsonReason(err))
	}
	if err := checkSubject(p.Subject); err != nil {
		return registered{}, Claims{}, err
	}
	if p.Expires == nil {
		return none("no exp")
	}
	reg := registered{issuer: p.Issuer}
	for _, date := range []struct {
		name string
		from *float64
		to   *time.Time
	}{{"exp", p.Expires, &reg.expires}, {"nbf", p.NotBefore, &reg.notBefore}, {"iat", p.IssuedAt, &reg.issuedAt}} {
		var ok bool
		if *date.to, ok = numericDate(date.from); !ok {
			return none(date.name + " is not a time")
		}
	}
	var err error
	if reg.audience, err = parseAudience(p.Audience); err != nil {
		return registered{}, Claims{}, err
	}
	claims := Claims{Subject: p.Subject, Expires: reg.expires, IssuedAt: reg.issuedAt, Admin: p.Sluice.Admin}
	if err := p.Sluice.into(&claims); err != nil {
		return registered{}, Claims{}, err
	}
	return reg, claims, nil
}

// into puts the rights of a token into c.
func (r rights) into(c *Claims) (err error) {
	if c.Subscribe, err = ParsePatterns(r.Subscribe); err != nil {
		return invalid("subscribe: " + err.Error())
	}
	if c.Publish, err = ParsePatterns(r.Publish); err != nil {
		return invalid("publish: " + err.Error())
	}
	if r.Info == nil || r.Info.Kind() == jsontext.KindNull {
		return nil
	}
	// Compact, since what is shown to others must not bring line breaks along.
	if err := r.Info.Compact(); err != nil {
		return invalid("info: " + jsonReason(err))
	}
	if len(r.Info) > maxInfo {
		return invalid("info is longer than 1 KiB")
	}
	c.Info = stdjson.RawMessage(r.Info)
	return nil
}

// check applies what depends on the clock and on whose tokens we accept.
func (v *Verifier) check(reg registered) error {
	now := time.Now()
	if !now.Before(reg.expires.Add(expLeeway)) {
		return invalid("expired")
	}
	if reg.notBefore.After(now.Add(skewLeeway)) {
		return invalid("not valid yet (nbf)")
	}
	if reg.issuedAt.After(now.Add(skewLeeway)) {
		return invalid("issued in the future (iat)")
	}
	if v.issuer != "" && reg.issuer != v.issuer {
		return invalid("the issuer is " + quote(reg.issuer))
	}
	if v.audience == "" && reg.audience != nil {
		// RFC 7519, 4.1.3: a token for somebody else is to be refused, and without a
		// name of our own we cannot say that it is for us.
		return invalid("the token is for an audience, and we were not told which we are")
	}
	if v.audience != "" && !slices.Contains(reg.audience, v.audience) {
		return invalid("the token is for another audience")
	}
	return nil
}

// checkSubject refuses names that could not be shown or logged as they are.
func checkSubject(sub string) error {
	if sub == "" {
		return invalid("no sub")
	}
	if len(sub) > maxSubject || !utf8.ValidString(sub) {
		return invalid("sub is longer than 256 bytes, or not UTF-8")
	}
	for _, r := range sub {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			return invalid("sub has control characters")
		}
	}
	return nil
}

// numericDate converts seconds since 1970, which may have a fraction. Dates that no
// calendar writes are no dates: adding a leeway to them would overflow.
func numericDate(seconds *float64) (time.Time, bool) {
	if seconds == nil {
		return time.Time{}, true
	}
	if !(*seconds >= 0 && *seconds <= lastSecond) {
		return time.Time{}, false
	}
	whole, fraction := math.Modf(*seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), true
}

// parseAudience reads aud: a string, a list of strings, or nothing.
func parseAudience(v jsontext.Value) ([]string, error) {
	switch v.Kind() {
	case jsontext.KindInvalid, jsontext.KindNull:
		return nil, nil
	case jsontext.KindString:
		var one string
		if err := json.Unmarshal(v, &one); err != nil {
			return nil, invalid("aud: " + jsonReason(err))
		}
		return []string{one}, nil
	}
	list := []string{}
	if err := json.Unmarshal(v, &list); err != nil {
		return nil, invalid("aud: " + jsonReason(err))
	}
	return list, nil
}

// jsonReason is an error of the JSON reader, fit for a log line: its text can repeat
// names out of the token.
func jsonReason(err error) string {
	const most = 160
	s := fmt.Sprintf("%+q", err.Error())
	s = s[1 : len(s)-1]
	if len(s) > most {
		s = s[:most] + "…"
	}
	return s
}
