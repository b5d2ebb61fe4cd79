package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func publicPEM(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func weakRSA(t testing.TB) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return publicPEM(t, &key.PublicKey)
}

func p384(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return publicPEM(t, &key.PublicKey)
}

// hostile are tokens with a right signature that must be refused all the same: the
// header, what the payload has more than claimsJSON, and what the log is told.
var hostile = []struct{ name, header, members, reason string }{
	{"alg none", `{"alg":"none"}`, "", "algorithm"},
	{"alg None", `{"alg":"None"}`, "", "algorithm"},
	{"alg empty", `{"alg":""}`, "", "algorithm"},
	{"no alg", `{}`, "", "algorithm"},
	{"alg in lower case", `{"alg":"hs256"}`, "", "algorithm"},
	{"alg we do not have", `{"alg":"HS384"}`, "", "algorithm"},
	{"alg of a key we do not have", `{"alg":"EdDSA"}`, "", "no key for EdDSA"},
	{"alg a list", `{"alg":["HS256"]}`, "", "header"},
	{"alg twice", `{"alg":"none","alg":"HS256"}`, "", "header"},
	{"header a list", `["HS256"]`, "", "header"},
	{"header with something behind", hs256Header + `{}`, "", "header"},
	{"crit unknown", `{"alg":"HS256","crit":["exp"],"exp":1}`, "", "crit"},
	{"crit b64", `{"alg":"HS256","crit":["b64"],"b64":false}`, "", "crit"},
	{"crit empty", `{"alg":"HS256","crit":[]}`, "", "crit"},
	{"crit null", `{"alg":"HS256","crit":null}`, "", "crit"},
	{"jwk", `{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}`, "", "its own key"},
	{"jku", `{"alg":"HS256","jku":"https://evil.example/jwks"}`, "", "its own key"},
	{"x5u", `{"alg":"HS256","x5u":"https://evil.example/cert"}`, "", "its own key"},
	{"x5c", `{"alg":"HS256","x5c":["AAAA"]}`, "", "its own key"},
	{"kid unknown", `{"alg":"HS256","kid":"2026-11/a+b=="}`, "", "no key"},
	{"kid a path", `{"alg":"HS256","kid":"../../dev/null"}`, "", "kid"},
	{"kid SQL", `{"alg":"HS256","kid":"' OR 1"}`, "", "kid"},
	{"kid with a line break", `{"alg":"HS256","kid":"a\n{\"level\":\"INFO\"}"}`, "", "kid"},
	{"kid with ANSI", `{"alg":"HS256","kid":"\u001b[2J"}`, "", "kid"},
	{"kid of 4 KB", `{"alg":"HS256","kid":"` + strings.Repeat("k", 4000) + `"}`, "", "kid"},
	{"kid a number", `{"alg":"HS256","kid":7}`, "", "header"},

	{"iat far ahead", hs256Header, fmt.Sprintf(`,"iat":%d`, time.Now().Unix()+300), "iat"},
	{"nbf far ahead", hs256Header, fmt.Sprintf(`,"nbf":%d`, time.Now().Unix()+300), "nbf"},
	{"iat a string", hs256Header, `,"iat":"1"`, "claims"},
	{"nbf 1e300", hs256Header, `,"nbf":1e300`, "nbf"},
	{"iat negative", hs256Header, `,"iat":-1`, "iat"},
	{"sub twice", hs256Header, `,"sub":"eve"`, "claims"},
	{"sub twice, escaped", hs256Header, `,"s\u0075b":"eve"`, "claims"},
	{"exp twice", hs256Header, `,"exp":99999999999`, "claims"},
	{"right twice", hs256Header, `,"sluice":{"admin":false,"admin":true}`, "claims"},
	{"unknown claim twice", hs256Header, `,"x":1,"x":2`, "claims"},
	{"iss a list", hs256Header, `,"iss":["a"]`, "claims"},
	{"aud though we have no name", hs256Header, `,"aud":"other"`, "audience"},
	{"aud an empty list", hs256Header, `,"aud":[]`, "audience"},
	{"aud a number", hs256Header, `,"aud":1`, "aud"},
	{"aud a list of numbers", hs256Header, `,"aud":[1]`, "aud"},
	{"rights a list", hs256Header, `,"sluice":["chat"]`, "claims"},
	{"admin a string", hs256Header, `,"sluice":{"admin":"true"}`, "claims"},
	{"subscribe a string", hs256Header, `,"sluice":{"subscribe":"*"}`, "claims"},
	{"a pattern with a line break", hs256Header, `,"sluice":{"subscribe":["a\nb"]}`, "subscribe"},
	{"an empty pattern", hs256Header, `,"sluice":{"publish":[""]}`, "publish"},
	{"a pattern of 257", hs256Header, `,"sluice":{"publish":["` + strings.Repeat("*", 257) + `"]}`, "publish"},
	{"101 patterns", hs256Header, `,"sluice":{"subscribe":["a"` + strings.Repeat(`,"a"`, 100) + `]}`, "subscribe"},
	{"info of 1 KiB and more", hs256Header, `,"sluice":{"info":"` + strings.Repeat("i", 1023) + `"}`, "info"},
	{"invalid UTF-8", hs256Header, ",\"x\":\"\xff\"", "claims"},
	{"a lone surrogate", hs256Header, `,"x":"\ud800"`, "claims"},
	{"depth", hs256Header, `,"x":` + strings.Repeat("[", 5000), "claims"},
}

func TestHostileTokensAreRefused(t *testing.T) {
	v := bySecret(t)
	for _, tt := range hostile {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, v, byHand(tt.header, claimsJSON(tt.members)), tt.reason)
		})
	}
}

func TestHostilePayloadsAreRefused(t *testing.T) {
	now := time.Now().Unix()
	v := newVerifier(t, Config{Keys: Keys{Secrets: [][]byte{secret}}, Issuer: "us", Audience: "sluice"})
	for _, tt := range []struct{ payload, reason string }{
		{fmt.Sprintf(`{"sub":"ann","exp":%d}`, now-60), "expired"},
		{`{"sub":"ann"}`, "no exp"},
		{`{"sub":"ann","exp":null}`, "no exp"},
		{fmt.Sprintf(`{"sub":"ann","EXP":%d}`, now+60), "no exp"},
		{fmt.Sprintf(`{"sub":"ann","exp":"%d"}`, now+60), "claims"},
		{`{"sub":"ann","exp":1e300}`, "exp is not a time"},
		{`{"sub":"ann","exp":1e999}`, "claims"},
		{`{"sub":"ann","exp":253402300800}`, "exp is not a time"},
		{`{"sub":"ann","exp":-1}`, "exp is not a time"},
		{`{"sub":"ann","exp":NaN}`, "claims"},
		{fmt.Sprintf(`{"exp":%d}`, now+60), "no sub"},
		{fmt.Sprintf(`{"sub":"","exp":%d}`, now+60), "no sub"},
		{fmt.Sprintf(`{"sub":7,"exp":%d}`, now+60), "claims"},
		{fmt.Sprintf(`{"sub":"a\nid: 9-9","exp":%d}`, now+60), "sub"},
		{fmt.Sprintf(`{"sub":"ann\u202e","exp":%d}`, now+60), "sub"},
		{fmt.Sprintf(`{"sub":"ann\u2028","exp":%d}`, now+60), "sub"},
		{fmt.Sprintf(`{"sub":"%s","exp":%d}`, strings.Repeat("s", 257), now+60), "sub"},
		{fmt.Sprintf(`{"sub":"ann","exp":%d}`, now+60), "issuer"},
		{fmt.Sprintf(`{"sub":"ann","exp":%d,"iss":"them"}`, now+60), "issuer"},
		{fmt.Sprintf(`{"sub":"ann","exp":%d,"iss":"us"}`, now+60), "another audience"},
		{fmt.Sprintf(`{"sub":"ann","exp":%d,"iss":"us","aud":"app"}`, now+60), "another audience"},
		{fmt.Sprintf(`{"sub":"ann","exp":%d,"iss":"us","aud":["app","SLUICE"]}`, now+60), "another audience"},
		{`null`, "no sub"},
		{`[]`, "claims"},
		{``, "claims"},
		{`{}{}`, "claims"},
	} {
		t.Run(tt.payload[:min(50, len(tt.payload))], func(t *testing.T) {
			refused(t, v, byHand(hs256Header, tt.payload), tt.reason)
		})
	}
}

func TestMisspeltTokensAreRefused(t *testing.T) {
	v := bySecret(t)
	good := byHand(hs256Header, claimsJSON(""))
	parts := strings.Split(good, ".")
	for _, tt := range []struct{ name, token, reason string }{
		{"empty", "", "three parts"},
		{"one part", "abc", "three parts"},
		{"two parts", parts[0] + "." + parts[1], "three parts"},
		{"four parts", good + ".", "three parts"},
		{"five parts", good + ".a.b", "three parts"},
		{"many parts", strings.Repeat(".", 8000), "three parts"},
		{"64 KB", strings.Repeat("a", 64<<10), "8 KiB"},
		{"8193 bytes", good + strings.Repeat("A", maxToken+1-len(good)), "8 KiB"},
		{"no signature", parts[0] + "." + parts[1] + ".", "signature"},
		{"padding", good + "=", "base64"},
		{"padding of the header", parts[0] + "==." + parts[1] + "." + parts[2], "base64"},
		{"line break inside", parts[0] + "." + parts[1] + "\n." + parts[2], "base64"},
		{"carriage return at the end", good + "\r\n", "base64"},
		{"space in front", " " + good, "base64"},
		{"NUL", good + "\x00", "base64"},
		{"the other alphabet", strings.NewReplacer("-", "+", "_", "/").Replace(parts[0]) + "+." + parts[1] + "." + parts[2], "base64"},
		{"bits that nobody reads", loosen(good), "base64"},
		{"another payload", parts[0] + "." + text([]byte(claimsJSON(`,"sluice":{"admin":true}`))) + "." + parts[2], "signature"},
		{"signature cut", good[:len(good)-3], "signature"},
		{"JSON serialization", `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `"}`, "three parts"},
		{"another secret", withSecret([]byte("evil evil evil evil evil evil ev"), hs256Header, claimsJSON("")), "signature"},
		{"the empty secret", withSecret(nil, hs256Header, claimsJSON("")), "signature"},
	} {
		t.Run(tt.name, func(t *testing.T) { refused(t, v, tt.token, tt.reason) })
	}
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Errorf("the token itself: %s", Reason(err))
	}
}

// loosen spells the signature in another way that means the same bytes: 32 bytes leave
// two bits of the last character unused.
func loosen(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[last|1])
}

// TestPublicKeyIsNoSecret plays the classic confusion: everybody has the public key, so
// a token "signed" with its text must not count.
func TestPublicKeyIsNoSecret(t *testing.T) {
	for _, alg := range []string{rs256, es256, eddsa} {
		public := pairs()[alg].public
		v := newVerifier(t, Config{Keys: Keys{PEM: [][]byte{public}}})
		block, _ := pem.Decode(public)
		for _, s := range [][]byte{public, bytes.TrimSpace(public), block.Bytes} {
			refused(t, v, withSecret(s, hs256Header, claimsJSON("")), "no key for HS256")
			// Nor when the header tells the truth about the key and not about the signature.
			refused(t, v, withSecret(s, `{"alg":"`+alg+`"}`, claimsJSON("")), "signature")
		}
	}
}

func TestZeroSignatureIsRefused(t *testing.T) {
	for _, alg := range []string{rs256, es256, eddsa} {
		v := newVerifier(t, Config{Keys: Keys{PEM: [][]byte{pairs()[alg].public}}})
		signed := text([]byte(`{"alg":"`+alg+`"}`)) + "." + text([]byte(claimsJSON("")))
		for _, n := range []int{0, 1, 63, 64, 65, 256} {
			refused(t, v, signed+"."+text(make([]byte, n)), "signature")
		}
		refused(t, v, signed+"."+text(bytes.Repeat([]byte{0xff}, 64)), "signature")
	}
}

// TestOneAlgorithmPerKey signs with our own key by a method that it is not for.
func TestOneAlgorithmPerKey(t *testing.T) {
	private, err := parsePrivatePEM(pairs()[rs256].private)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, Config{Keys: Keys{PEM: [][]byte{pairs()[rs256].public}}})
	for _, m := range []jwt.SigningMethod{jwt.SigningMethodPS256, jwt.SigningMethodRS384, jwt.SigningMethodRS512} {
		signed := text([]byte(`{"alg":"`+m.Alg()+`"}`)) + "." + text([]byte(claimsJSON("")))
		signature, err := m.Sign(signed, private)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, v, signed+"."+text(signature), "algorithm")
	}
}

// TestVerdictsLookAlike: from outside, an unknown kid is a bad signature is an old token.
func TestVerdictsLookAlike(t *testing.T) {
	v := newVerifier(t, Config{Keys: Keys{PEM: [][]byte{pairs()[es256].public}}})
	var errs []error
	for _, token := range []string{"", "a.b.c", byHand(hs256Header, claimsJSON("")),
		sign(t, keySigner(t, eddsa, "nobody"), Grant{}),
		sign(t, keySigner(t, es256, ""), Grant{Expires: time.Now().Add(-time.Hour)})} {
		_, err := v.Verify(t.Context(), token)
		errs = append(errs, err)
	}
	for i, err := range errs {
		if fmt.Sprintf("%v %s", err, err) != "invalid token invalid token" {
			t.Errorf("token %d: %v", i, err)
		}
	}
}
