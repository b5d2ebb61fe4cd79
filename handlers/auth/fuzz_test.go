package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// FuzzJWT feeds tokens as they come, and headers and payloads with a signature that is
// right. Whatever is accepted is judged again here, by other code: that one of our keys
// signed it with its own algorithm, and that it means what it seems to say.
func FuzzJWT(f *testing.F) {
	keys := Keys{Secrets: [][]byte{secret}}
	for _, p := range pairs() {
		keys.PEM = append(keys.PEM, p.public)
	}
	v, err := New(Config{Keys: keys})
	if err != nil {
		f.Fatal(err)
	}
	for _, alg := range []string{rs256, es256, eddsa} {
		f.Add(sign(f, keySigner(f, alg, ""), Grant{Expires: time.Now().Add(24 * time.Hour)}), "", "")
	}
	f.Add(byHand(hs256Header, claimsJSON("")), "", "")
	for _, tt := range hostile {
		f.Add(byHand(tt.header, claimsJSON(tt.members)), tt.header, claimsJSON(tt.members))
	}
	f.Add("", hs256Header, claimsJSON(`,"sluice":{"subscribe":["a*"],"info":{"a":[1]}}`))
	f.Fuzz(func(t *testing.T, token, header, payload string) {
		for _, token := range []string{token, byHand(header, payload), withSecret([]byte("x"), header, payload)} {
			claims, err := v.Verify(t.Context(), token)
			if err != nil {
				if !errors.Is(err, ErrInvalid) || err.Error() != "invalid token" || len(Reason(err)) > 300 {
					t.Fatalf("%q: error %q, reason %q", token, err, Reason(err))
				}
				continue
			}
			if err := judge(token, claims); err != nil {
				t.Fatalf("%q was accepted as %+v: %v", token, claims, err)
			}
		}
	})
}

func judge(token string, c Claims) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > 8192 {
		return errors.New("its shape is wrong")
	}
	var raw [3][]byte
	for i, p := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(p); err != nil {
			return err
		}
		if text(raw[i]) != p {
			return errors.New("it could be spelt otherwise")
		}
	}
	var head, body map[string]any
	if err := errors.Join(json.Unmarshal(raw[0], &head), json.Unmarshal(raw[1], &body)); err != nil {
		return err
	}
	alg, _ := head["alg"].(string)
	if !signedBy(alg, parts[0]+"."+parts[1], raw[2]) {
		return errors.New("no key of ours signed it")
	}
	for _, name := range []string{"crit", "jwk", "jku", "x5u", "x5c"} {
		if _, ok := head[name]; ok {
			return fmt.Errorf("its header has %s", name)
		}
	}
	now := float64(time.Now().Unix())
	if exp, ok := body["exp"].(float64); !ok || exp <= now-6 || exp > 1e12 {
		return errors.New("its exp is wrong")
	}
	if iat, ok := body["iat"].(float64); ok && iat > now+31 {
		return errors.New("it is from the future")
	}
	if sub, ok := body["sub"].(string); !ok || sub == "" || sub != c.Subject {
		return errors.New("its sub is wrong")
	}
	if body["aud"] != nil {
		return errors.New("it is for somebody else")
	}
	if c.Info != nil && (len(c.Info) > maxInfo || strings.ContainsAny(string(c.Info), "\r\n") || !json.Valid(c.Info)) {
		return errors.New("its info is wrong")
	}
	return nil
}

// signedBy checks a signature without golang-jwt and without the verifier's own tables.
func signedBy(alg, signed string, signature []byte) bool {
	sum := sha256.Sum256([]byte(signed))
	if alg == "HS256" {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(signed))
		return hmac.Equal(mac.Sum(nil), signature)
	}
	p, ok := pairs()[alg]
	if !ok {
		return false
	}
	private, err := parsePrivatePEM(p.private)
	if err != nil {
		return false
	}
	switch key := private.Public().(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
	case *ecdsa.PublicKey:
		return len(signature) == 64 && ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	case ed25519.PublicKey:
		return ed25519.Verify(key, []byte(signed), signature)
	}
	return false
}
