package auth

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// rfc7638 is the example key of RFC 7638, 3.1, whose thumbprint the RFC gives.
const (
	rfc7638 = `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}`

	rfc7638Thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
)

func TestThumbprintIsThatOfTheRFC(t *testing.T) {
	k, err := parseJWK([]byte(rfc7638))
	if err != nil {
		t.Fatal(err)
	}
	j, err := newJWK(k.of)
	if err != nil || j.Kid != rfc7638Thumbprint {
		t.Errorf("got %q, %v; want %q", j.Kid, err, rfc7638Thumbprint)
	}
}

// jwksOf is a key set of the pairs' public keys.
func jwksOf(t testing.TB, algs ...string) string {
	t.Helper()
	var texts [][]byte
	for _, alg := range algs {
		texts = append(texts, pairs()[alg].public)
	}
	b, err := MarshalJWKS(texts...)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestKeySetGoesThereAndBack(t *testing.T) {
	doc := jwksOf(t, rs256, es256, eddsa)
	set, ignored, err := parseJWKS([]byte(doc))
	if err != nil || len(ignored) > 0 || len(set.all) != 3 || len(set.unnamed) != 0 {
		t.Fatalf("got %+v, %q, %v of %s", set, ignored, err, doc)
	}
	for _, alg := range []string{rs256, es256, eddsa} {
		token, err := split(sign(t, keySigner(t, alg, ""), Grant{}))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := set.signed(token); !ok {
			t.Errorf("%s: a key that was written and read does not fit its own token", alg)
		}
	}
	if strings.Contains(doc, `"d"`) {
		t.Errorf("a private member in %s", doc)
	}
}

// member is a key of the pairs as JSON, changed by hand.
func member(t *testing.T, alg string, change map[string]any) string {
	t.Helper()
	var doc struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(jwksOf(t, alg)), &doc); err != nil {
		t.Fatal(err)
	}
	for name, v := range change {
		doc.Keys[0][name] = v
		if v == nil {
			delete(doc.Keys[0], name)
		}
	}
	b, err := json.Marshal(doc.Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestUnfitKeysAreIgnoredWithAReason(t *testing.T) {
	weak, err := parsePublicPEM(weakRSA(t))
	if err != nil {
		t.Fatal(err)
	}
	_, err = newJWK(weak[0])
	if err == nil || !strings.Contains(err.Error(), "1024 bits") {
		t.Fatalf("a weak key becomes a JWK: %v", err)
	}
	for name, tt := range map[string]struct{ key, reason string }{
		"1024 bits":         {`{"kty":"RSA","n":"` + text(append([]byte{0x80}, make([]byte, 127)...)) + `","e":"AQAB"}`, "1024 bits"},
		"100,000 bits":      {`{"kty":"RSA","n":"` + strings.Repeat("_", 12500) + `","e":"AQAB"}`, "n or e"},
		"e = 1":             {member(t, rs256, map[string]any{"e": "AQ"}), "exponent"},
		"e even":            {member(t, rs256, map[string]any{"e": "AQAA"}), "exponent"},
		"e of 2^32":         {member(t, rs256, map[string]any{"e": "AQAAAAE"}), "n or e"},
		"e above 2^31":      {member(t, rs256, map[string]any{"e": "_____w"}), "too large"},
		"use enc":           {member(t, rs256, map[string]any{"use": "enc"}), "not for signatures"},
		"key_ops encrypt":   {member(t, rs256, map[string]any{"key_ops": []string{"encrypt"}}), "not for signatures"},
		"alg RS512":         {member(t, rs256, map[string]any{"alg": "RS512"}), "RS512"},
		"alg HS256":         {member(t, rs256, map[string]any{"alg": "HS256"}), "HS256"},
		"alg of another":    {member(t, es256, map[string]any{"alg": "EdDSA"}), "EdDSA"},
		"private":           {member(t, es256, map[string]any{"d": "AAAA"}), "private"},
		"kid a path":        {member(t, es256, map[string]any{"kid": "../x"}), "kid"},
		"not on the curve":  {member(t, es256, map[string]any{"x": text(make([]byte, 32))}), "key 0"},
		"short coordinate":  {member(t, es256, map[string]any{"x": "AAAA"}), "coordinate"},
		"padded coordinate": {member(t, es256, map[string]any{"y": text(make([]byte, 32)) + "="}), "coordinate"},
		"P-521":             {member(t, es256, map[string]any{"crv": "P-521"}), "P-521"},
		"secp256k1":         {member(t, es256, map[string]any{"crv": "secp256k1"}), "secp256k1"},
		"Ed25519, short":    {member(t, eddsa, map[string]any{"x": "AAAA"}), "Ed25519"},
		"X25519":            {member(t, eddsa, map[string]any{"crv": "X25519"}), "X25519"},
		"a secret":          {`{"kty":"oct","k":"c2VjcmV0"}`, "oct"},
		"kid a number":      {member(t, eddsa, map[string]any{"kid": 1}), "no key"},
		"a string":          {`"key"`, "no key"},
	} {
		_, ignored, err := parseJWKS([]byte(`{"keys":[` + tt.key + `]}`))
		if err == nil || len(ignored) != 1 || !strings.Contains(ignored[0], tt.reason) {
			t.Errorf("%s: ignored %q, %v; want %q in it", name, ignored, err, tt.reason)
		}
		// One bad key must not take the good ones along.
		set, ignored, err := parseJWKS([]byte(`{"keys":[` + tt.key + `,` + member(t, rs256, nil) + `]}`))
		if err != nil || len(ignored) != 1 || len(set.all) != 1 {
			t.Errorf("%s: beside a good key: ignored %q, %v", name, ignored, err)
		}
	}
}

func TestKeysWithoutDetailsAreUsed(t *testing.T) {
	for name, change := range map[string]map[string]any{
		"no use":         {"use": nil},
		"no alg":         {"alg": nil},
		"key_ops verify": {"key_ops": []string{"verify"}, "use": nil},
		"unknown member": {"x5t": "abc", "x5c": []string{"AAAA"}},
		"no kid":         {"kid": nil},
	} {
		set, ignored, err := parseJWKS([]byte(`{"keys":[` + member(t, es256, change) + `]}`))
		if err != nil || len(ignored) > 0 {
			t.Errorf("%s: %q, %v", name, ignored, err)
			continue
		}
		token, err := split(sign(t, keySigner(t, es256, ""), Grant{}))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := set.signed(token); !ok {
			t.Errorf("%s: it does not fit its token", name)
		}
	}
}

func TestDocumentsThatAreNoKeySet(t *testing.T) {
	many := `{"keys":[{}` + strings.Repeat(",{}", maxKeys) + `]}`
	for _, doc := range []string{"", "null", "[]", "{}", `{"keys":null}`, `{"keys":[]}`, `{"keys":{}}`, "<html>", many,
		fmt.Sprintf(`{"keys":[%[1]s],"keys":[%[1]s]}`, member(t, es256, nil)), jwksOf(t, es256) + "x"} {
		if _, _, err := parseJWKS([]byte(doc)); err == nil {
			t.Errorf("%.60q was accepted", doc)
		}
	}
}

func FuzzJWKS(f *testing.F) {
	f.Add([]byte(jwksOf(f, rs256, es256, eddsa)))
	f.Add([]byte(`{"keys":[` + rfc7638 + `,{"kty":"oct","k":"AAAA"},{"kty":"EC","crv":"P-256","x":"","y":""}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		set, ignored, err := parseJWKS(doc)
		if err != nil {
			return
		}
		if len(set.all) == 0 || len(set.all)+len(ignored) > maxKeys {
			t.Fatalf("%q: %d keys, %d ignored", doc, len(set.all), len(ignored))
		}
		for _, k := range set.all {
			j, err := newJWK(k.of)
			if err != nil || j.Alg != k.alg || k.alg == hs256 {
				t.Errorf("a key for %s that cannot be written: %v", k.alg, err)
			}
		}
	})
}
