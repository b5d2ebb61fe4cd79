package auth

import (
	"encoding/base64"
	"strings"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxToken = 8 << 10 // bytes, looked at before anything else
	maxKid   = 128
)

// unverified is a token taken apart; nothing in it is to be believed yet.
type unverified struct {
	alg, kid  string
	signed    string // what the signature covers: header and payload as they came
	payload   []byte
	signature []byte
}

// header lists what a token may say of itself that matters to us. The raw members are
// there to be refused: demands that we do not know, and keys that a token brings along.
type header struct {
	Alg  string         `json:"alg"`
	Kid  string         `json:"kid"`
	Crit jsontext.Value `json:"crit"`
	JWK  jsontext.Value `json:"jwk"`
	JKU  jsontext.Value `json:"jku"`
	X5U  jsontext.Value `json:"x5u"`
	X5C  jsontext.Value `json:"x5c"`
}

// split takes a compact JWS apart and refuses what no honest issuer makes. The JSON
// reader it uses refuses names given twice, names in another case and invalid UTF-8.
func split(token string) (unverified, error) {
	if len(token) > maxToken {
		return unverified{}, invalid("the token is longer than 8 KiB")
	}
	parts := strings.SplitN(token, ".", 4)
	if len(parts) != 3 {
		return unverified{}, invalid("the token does not have three parts")
	}
	var raw [3][]byte
	for i, part := range parts {
		b, ok := decodeBase64(part)
		if !ok {
			return unverified{}, invalid("the token is not strict base64url")
		}
		raw[i] = b
	}
	var h header
	if err := json.Unmarshal(raw[0], &h); err != nil {
		return unverified{}, invalid("the header is not a JSON object of a token")
	}
	if err := h.check(); err != nil {
		return unverified{}, err
	}
	return unverified{
		alg:       h.Alg,
		kid:       h.Kid,
		signed:    token[:len(parts[0])+1+len(parts[1])],
		payload:   raw[1],
		signature: raw[2],
	}, nil
}

func (h header) check() error {
	if _, ok := methods[h.Alg]; !ok {
		return invalid("the algorithm " + quote(h.Alg) + " is not accepted")
	}
	if h.Crit != nil {
		return invalid("the header demands extensions (crit)")
	}
	if h.JWK != nil || h.JKU != nil || h.X5U != nil || h.X5C != nil {
		return invalid("the token brings its own key (jwk, jku, x5u or x5c)")
	}
	if h.Kid != "" && !validKid(h.Kid) {
		return invalid("the kid " + quote(h.Kid) + " is not one")
	}
	return nil
}

// validKid admits the key ids that issuers use: hashes, UUIDs, base64, URLs. A kid is
// only ever looked up in a map; what it refuses are paths upwards, spaces and quotes,
// which make sense in attacks on something else alone.
func validKid(kid string) bool {
	if len(kid) > maxKid || strings.Contains(kid, "..") {
		return false
	}
	for i := range len(kid) {
		if !isAlnum(kid[i]) && !strings.ContainsRune("-_.~:#+/=@", rune(kid[i])) {
			return false
		}
	}
	return true
}

// decodeBase64 accepts only the one spelling that a byte string has. The library
// function alone skips line breaks and would let a token be spelt in many ways.
func decodeBase64(s string) ([]byte, bool) {
	for i := range len(s) {
		if !isAlnum(s[i]) && s[i] != '-' && s[i] != '_' {
			return nil, false
		}
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return b, err == nil
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
