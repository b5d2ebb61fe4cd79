package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret signs the tokens that tests write by hand.
var secret = []byte("thirty-two bytes are enough here")

type pair struct{ private, public []byte }

// pairs are made once, since RSA keys take a while.
var pairs = sync.OnceValue(func() map[string]pair {
	all := map[string]pair{}
	for _, alg := range []string{rs256, es256, eddsa} {
		private, public, err := NewKeyPair(alg)
		if err != nil {
			panic(err)
		}
		all[alg] = pair{private, public}
	}
	return all
})

func newVerifier(t testing.TB, cfg Config) *Verifier {
	t.Helper()
	v, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func bySecret(t testing.TB) *Verifier {
	t.Helper()
	return newVerifier(t, Config{Keys: Keys{Secrets: [][]byte{secret}}})
}

func keySigner(t testing.TB, alg, kid string) *Signer {
	t.Helper()
	s, err := KeySigner(pairs()[alg].private, kid)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t testing.TB, s *Signer, g Grant) string {
	t.Helper()
	if g.Subject == "" {
		g.Subject = "ann"
	}
	if g.Expires.IsZero() {
		g.Expires = time.Now().Add(time.Hour)
	}
	token, err := s.Sign(g)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func text(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// byHand makes an HS256 token of any header and payload, with a signature that is right.
func byHand(header, payload string) string {
	return withSecret(secret, header, payload)
}

func withSecret(secret []byte, header, payload string) string {
	signed := text([]byte(header)) + "." + text([]byte(payload))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + text(mac.Sum(nil))
}

// claimsJSON is a payload that is accepted, with more members in it.
func claimsJSON(members string) string {
	return fmt.Sprintf(`{"sub":"ann","exp":%d%s}`, time.Now().Add(time.Hour).Unix(), members)
}

const hs256Header = `{"alg":"HS256","typ":"JWT"}`

// refused checks that a token gets the one error, and that the log learns why.
func refused(t *testing.T, v *Verifier, token, reason string) {
	t.Helper()
	claims, err := v.Verify(t.Context(), token)
	if !errors.Is(err, ErrInvalid) || err.Error() != "invalid token" {
		t.Fatalf("got %v, %+v; want ErrInvalid", err, claims)
	}
	if claims.Subject != "" || claims.Subscribe != nil || claims.Admin {
		t.Errorf("a refused token yields claims: %+v", claims)
	}
	if !strings.Contains(Reason(err), reason) {
		t.Errorf("reason %q, want %q in it", Reason(err), reason)
	}
	for _, r := range Reason(err) {
		if r < ' ' || r == 0x7f {
			t.Errorf("the reason %q has control characters", Reason(err))
		}
	}
	if len(Reason(err)) > 300 {
		t.Errorf("a reason of %d bytes", len(Reason(err)))
	}
}

func TestEachAlgorithmIsAccepted(t *testing.T) {
	signers := map[string]*Signer{}
	var err error
	if signers[hs256], err = SecretSigner(secret); err != nil {
		t.Fatal(err)
	}
	var files []byte // one file may hold several keys
	for alg, p := range pairs() {
		signers[alg] = keySigner(t, alg, "")
		files = append(files, p.public...)
	}
	v := newVerifier(t, Config{Keys: Keys{Secrets: [][]byte{secret}, PEM: [][]byte{files}}})
	for alg, s := range signers {
		token := sign(t, s, Grant{
			Subject: "ann", IssuedAt: time.Now(),
			Subscribe: []string{"chat:*"}, Publish: []string{"chat:lobby"},
			Admin: true, Info: []byte("{\n \"name\": \"Ann\" }"),
		})
		c, err := v.Verify(t.Context(), token)
		if err != nil {
			t.Fatalf("%s: %s", alg, Reason(err))
		}
		if c.Subject != "ann" || !c.Admin || string(c.Info) != `{"name":"Ann"}` {
			t.Errorf("%s: got %+v", alg, c)
		}
		if d := time.Until(c.Expires); d < 59*time.Minute || d > time.Hour {
			t.Errorf("%s: expires in %v", alg, d)
		}
		if !c.CanSubscribe("chat:x") || c.CanSubscribe("news") || !c.CanPublish("chat:lobby") || c.CanPublish("chat:x") {
			t.Errorf("%s: wrong rights: %+v", alg, c)
		}
	}
}

func TestTokenWithoutRightsMayNothing(t *testing.T) {
	c, err := bySecret(t).Verify(t.Context(), byHand(hs256Header, claimsJSON("")))
	if err != nil {
		t.Fatal(Reason(err))
	}
	if c.CanSubscribe("lobby") || c.CanPublish("lobby") || c.Admin || c.Info != nil || !c.IssuedAt.IsZero() {
		t.Errorf("got %+v", c)
	}
}

// TestOrdinaryTokensAreAccepted guards against refusing too much.
func TestOrdinaryTokensAreAccepted(t *testing.T) {
	v := newVerifier(t, Config{Keys: Keys{Secrets: [][]byte{secret}}, Issuer: "https://id.example", Audience: "sluice"})
	us := `,"iss":"https://id.example","aud":"sluice"`
	for name, tt := range map[string]struct{ header, payload string }{
		"aud a list with us":      {hs256Header, claimsJSON(`,"iss":"https://id.example","aud":["app","sluice"]`)},
		"no typ":                  {`{"alg":"HS256"}`, claimsJSON(us)},
		"x5t beside it":           {`{"alg":"HS256","x5t":"abc"}`, claimsJSON(us)},
		"unknown claims":          {hs256Header, claimsJSON(us + `,"jti":"1","email":"a@b.example","groups":[{"a":1}]`)},
		"names in other case":     {hs256Header, claimsJSON(us + `,"EXP":1,"Sub":"eve"`)},
		"exp with a fraction":     {hs256Header, fmt.Sprintf(`{"sub":"ann","exp":%d.5%s}`, time.Now().Unix()+60, us)},
		"exp in exponent form":    {hs256Header, `{"sub":"ann","exp":99.9e9` + us + `}`},
		"null rights":             {hs256Header, claimsJSON(us + `,"sluice":{"subscribe":null,"info":null}`)},
		"sub of another alphabet": {hs256Header, fmt.Sprintf(`{"sub":"Анна 🦊","exp":%d%s}`, time.Now().Unix()+60, us)},
	} {
		if c, err := v.Verify(t.Context(), byHand(tt.header, tt.payload)); err != nil {
			t.Errorf("%s: %s", name, Reason(err))
		} else if c.Subject == "eve" || c.Info != nil {
			t.Errorf("%s: got %+v", name, c)
		}
	}
}

func TestTimesHaveTheirLeewayAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := bySecret(t)
		now := time.Now().Unix()
		for _, tt := range []struct {
			claims string
			ok     bool
		}{
			{fmt.Sprintf(`"exp":%d`, now-4), true},
			{fmt.Sprintf(`"exp":%d`, now-5), false},
			{fmt.Sprintf(`"exp":%d`, now+60), true},
			{fmt.Sprintf(`"exp":%d,"nbf":%d`, now+60, now+30), true},
			{fmt.Sprintf(`"exp":%d,"nbf":%d`, now+60, now+31), false},
			{fmt.Sprintf(`"exp":%d,"iat":%d`, now+60, now+30), true},
			{fmt.Sprintf(`"exp":%d,"iat":%d`, now+60, now+31), false},
			{fmt.Sprintf(`"exp":%d,"nbf":0,"iat":0`, now+60), true},
		} {
			_, err := v.Verify(t.Context(), byHand(hs256Header, `{"sub":"ann",`+tt.claims+`}`))
			if ok := err == nil; ok != tt.ok {
				t.Errorf("%s: accepted %v, want %v (%s)", tt.claims, ok, tt.ok, Reason(err))
			}
		}
	})
}

func TestTokenEndsWhileWeWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := bySecret(t)
		token := byHand(hs256Header, claimsJSON(""))
		time.Sleep(time.Hour + expLeeway - time.Millisecond)
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Fatalf("before its end: %s", Reason(err))
		}
		time.Sleep(time.Millisecond)
		refused(t, v, token, "expired")
	})
}

func TestReloadSwapsKeys(t *testing.T) {
	v := bySecret(t)
	old := byHand(hs256Header, claimsJSON(""))
	next := []byte("another secret of thirty-two byt")
	if err := v.Reload(Keys{Secrets: [][]byte{next}}); err != nil {
		t.Fatal(err)
	}
	refused(t, v, old, "the signature is not ours")
	fresh := withSecret(next, hs256Header, claimsJSON(""))
	if _, err := v.Verify(t.Context(), fresh); err != nil {
		t.Fatal(Reason(err))
	}
	for _, bad := range []Keys{{}, {Secrets: [][]byte{[]byte("short")}}, {PEM: [][]byte{[]byte("no PEM")}}} {
		if err := v.Reload(bad); err == nil {
			t.Errorf("Reload(%q) was accepted", bad)
		}
	}
	if _, err := v.Verify(t.Context(), fresh); err != nil {
		t.Errorf("a failed Reload lost the keys: %s", Reason(err))
	}
	v.Close()
	v.Close()
}

func TestUnusableKeysAreRefusedAtTheStart(t *testing.T) {
	weak := weakRSA(t)
	for name, tt := range map[string]struct {
		cfg  Config
		want string
	}{
		"nothing":          {Config{}, "no key"},
		"short secret":     {Config{Keys: Keys{Secrets: [][]byte{secret[:31]}}}, "sluice token --new-key hs256"},
		"empty secret":     {Config{Keys: Keys{Secrets: [][]byte{{}}}}, "has 0 bytes"},
		"PEM as secret":    {Config{Keys: Keys{Secrets: [][]byte{pairs()[rs256].public}}}, "PEM"},
		"no PEM":           {Config{Keys: Keys{PEM: [][]byte{[]byte("hello")}}}, "no PEM"},
		"private key":      {Config{Keys: Keys{PEM: [][]byte{pairs()[es256].private}}}, "private"},
		"1024 bits":        {Config{Keys: Keys{PEM: [][]byte{weak}}}, "1024 bits"},
		"P-384":            {Config{Keys: Keys{PEM: [][]byte{p384(t)}}}, "P-384"},
		"broken PEM":       {Config{Keys: Keys{PEM: [][]byte{[]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")}}}, "reading a public key"},
		"another block":    {Config{Keys: Keys{PEM: [][]byte{[]byte("-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n")}}}, "DH PARAMETERS"},
		"JWKS over http":   {Config{JWKSURL: "http://id.example/jwks"}, "must be https"},
		"JWKS as a file":   {Config{JWKSURL: "file:///etc/passwd"}, "not a URL"},
		"JWKS with a user": {Config{JWKSURL: "https://a:b@id.example/jwks"}, "not a URL"},
		"no URL":           {Config{JWKSURL: "https://\x00"}, "not a URL"},
	} {
		v, err := New(tt.cfg)
		if err == nil {
			v.Close()
			t.Errorf("%s: accepted", name)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", name, err, tt.want)
		}
	}
}
