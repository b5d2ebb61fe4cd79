// Package auth decides who a request comes from and which rooms it may use.
//
//	request -> Credential -> Verifier.Verify -> Claims -> CanSubscribe, CanPublish
//
// A token is a JWT signed with HS256, RS256, ES256 or EdDSA. Keys come from the
// configuration (secrets, PEM) or from a JWKS URL; each key has exactly one
// algorithm, so that a token can never choose how a key is used, and the kid of a
// token is a key of a map and nothing else.
//
// Cryptography is golang-jwt's. What stands around it is strict and is ours (token.go,
// claims.go): the library accepts tokens that never expire, were issued in the future
// or demand extensions that we do not know, and reads a claim given twice as its last
// value. Whatever is wrong with a token, the outside learns ErrInvalid; Reason tells
// the log more.
//
// jwks.go reads key sets and remote.go keeps one fresh, never more than one fetch in
// half a minute; mint.go and keygen.go are the other side: they make tokens and keys.
package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
)

// ErrInvalid is what every token gets that does not prove who its bearer is.
var ErrInvalid = errors.New("invalid token")

// ErrUnavailable says that a token could not be judged, because the key set has not
// been fetched even once. It is no verdict: answer 503, not 401.
var ErrUnavailable = errors.New("the keys for tokens are not available at the moment")

// Keys are the keys known without asking anybody.
type Keys struct {
	Secrets [][]byte // HS256; at least 32 bytes each
	PEM     [][]byte // RS256, ES256, EdDSA: public keys or certificates, several a file
}

// Config says whose tokens are accepted. At least one key or a JWKSURL is needed.
type Config struct {
	Keys     Keys
	JWKSURL  string // https, or http on a loopback host
	Issuer   string // what iss must be; anything if empty
	Audience string // what aud must contain; if empty, tokens made for an audience are refused

	Transport http.RoundTripper // for the JWKSURL; one that uses the system's roots if nil
	Log       *slog.Logger      // tells of failed fetches and ignored keys; silent if nil
}

// Verifier checks tokens. Its methods may be called from any goroutine.
type Verifier struct {
	issuer, audience string
	static           atomic.Pointer[keySet]
	remote           *remote // nil without a JWKSURL
}

// New makes a Verifier and, with a JWKSURL, starts fetching it; it does not wait for
// the first fetch. The caller owes a Close.
func New(cfg Config) (*Verifier, error) {
	if cfg.JWKSURL == "" && cfg.Keys.empty() {
		return nil, errors.New("no key for tokens: give a secret, a public key or a JWKS URL")
	}
	static, err := newStaticSet(cfg.Keys)
	if err != nil {
		return nil, err
	}
	v := &Verifier{issuer: cfg.Issuer, audience: cfg.Audience}
	v.static.Store(static)
	if cfg.JWKSURL == "" {
		return v, nil
	}
	if v.remote, err = newRemote(cfg); err != nil {
		return nil, err
	}
	return v, nil
}

// Close ends the fetching of keys and waits for it. It may be called again.
func (v *Verifier) Close() {
	if v.remote != nil {
		v.remote.close()
	}
}

// Reload replaces the configured keys, all at once; after an error the old ones hold.
// What comes from the JWKSURL is left as it is.
func (v *Verifier) Reload(keys Keys) error {
	if v.remote == nil && keys.empty() {
		return errors.New("no key for tokens: the old ones stay")
	}
	set, err := newStaticSet(keys)
	if err != nil {
		return err
	}
	v.static.Store(set)
	return nil
}

// Ready returns nil once tokens can be judged, else ErrUnavailable.
func (v *Verifier) Ready() error {
	if v.remote != nil && v.remote.keys() == nil && len(v.static.Load().all) == 0 {
		return ErrUnavailable
	}
	return nil
}

// Verify returns what a token grants. The error is ErrInvalid, whatever is wrong, or
// ErrUnavailable. It blocks only for a token whose key is not known, while the JWKSURL
// is fetched: at most once in 30 s, a few seconds long, and not longer than ctx.
func (v *Verifier) Verify(ctx context.Context, token string) (Claims, error) {
	t, err := split(token)
	if err != nil {
		return Claims{}, err
	}
	if err := v.checkSignature(ctx, t); err != nil {
		return Claims{}, err
	}
	reg, claims, err := parseClaims(t.payload)
	if err != nil {
		return Claims{}, err
	}
	if err := v.check(reg); err != nil {
		return Claims{}, err
	}
	return claims, nil
}

// checkSignature looks for a key that signed t. A new key set is asked for only where
// the kid is unknown: a bad signature under a known key costs nothing but itself.
func (v *Verifier) checkSignature(ctx context.Context, t unverified) error {
	found, ok := v.static.Load().signed(t)
	if ok {
		return nil
	}
	if v.remote == nil {
		return noKey(found, t)
	}
	keys := v.remote.keys()
	if keys != nil {
		known, ok := keys.signed(t)
		if ok {
			return nil
		}
		if known || t.kid == "" || t.alg == hs256 {
			return noKey(known || found, t)
		}
	}
	v.remote.refresh(ctx)
	keys = v.remote.keys()
	if keys == nil {
		return ErrUnavailable
	}
	known, ok := keys.signed(t)
	if ok {
		return nil
	}
	return noKey(known || found, t)
}

// noKey is the error for a token that none of our keys signed.
func noKey(found bool, t unverified) error {
	if found {
		return invalid("the signature is not ours")
	}
	if t.kid == "" {
		return invalid("no key for " + t.alg)
	}
	return invalid(fmt.Sprintf("no key %s for %s", quote(t.kid), t.alg))
}

// invalid is an ErrInvalid that keeps its reason to itself.
type invalid string

func (invalid) Error() string        { return ErrInvalid.Error() }
func (invalid) Is(target error) bool { return target == ErrInvalid }

// Reason tells the log why a token was refused. What it repeats of the token is
// shortened and quoted; it is for operators, never for the client.
func Reason(err error) string {
	if why, ok := errors.AsType[invalid](err); ok {
		return string(why)
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

// quote makes a hostile string fit for a log line.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%+q…", s[:most])
	}
	return fmt.Sprintf("%+q", s)
}
