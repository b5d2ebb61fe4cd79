package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestSecretsAreStrongAndDiffer(t *testing.T) {
	a, b := NewSecret(), NewSecret()
	if a == b || len(a) != 43 {
		t.Errorf("got %q and %q", a, b)
	}
	if err := checkSecret([]byte(a)); err != nil {
		t.Error(err)
	}
}

func TestGrantIsWhatTheVerifierReads(t *testing.T) {
	s, err := SecretSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, Config{Keys: Keys{Secrets: [][]byte{secret}}, Issuer: "me", Audience: "sluice"})
	now := time.Now()
	for _, audience := range [][]string{{"sluice"}, {"app", "sluice"}} {
		token := sign(t, s, Grant{Subject: "ann", Issuer: "me", Audience: audience, IssuedAt: now, NotBefore: now, Expires: now.Add(time.Minute), Admin: true})
		c, err := v.Verify(t.Context(), token)
		if err != nil {
			t.Fatal(Reason(err))
		}
		if c.IssuedAt.Unix() != now.Unix() || c.Expires.Unix() != now.Unix()+60 || !c.Admin {
			t.Errorf("got %+v", c)
		}
		if u, err := split(token); err != nil || u.kid != "" {
			t.Errorf("kid %q, %v: a secret has none", u.kid, err)
		}
	}
}

func TestWhatWouldBeRefusedIsNotSigned(t *testing.T) {
	s, err := SecretSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	long := make([]string, 99)
	for i := range long {
		long[i] = strings.Repeat("r", 128)
	}
	later := time.Now().Add(time.Hour)
	for name, tt := range map[string]struct {
		grant Grant
		want  string
	}{
		"no subject":  {Grant{Expires: later}, "no sub"},
		"no end":      {Grant{Subject: "ann"}, "no exp"},
		"bad pattern": {Grant{Subject: "ann", Expires: later, Subscribe: []string{"chat room"}}, "room pattern"},
		"bad info":    {Grant{Subject: "ann", Expires: later, Info: []byte("{")}, "info"},
		"info twice":  {Grant{Subject: "ann", Expires: later, Info: []byte(`{"a":1,"a":2}`)}, "info"},
		"big info":    {Grant{Subject: "ann", Expires: later, Info: []byte(`"` + strings.Repeat("i", 2000) + `"`)}, "info"},
		"too long":    {Grant{Subject: "ann", Expires: later, Subscribe: long}, "8 KiB"},
		"bad name":    {Grant{Subject: "ann\n", Expires: later}, "sub"},
		"bad UTF-8":   {Grant{Subject: "ann\xff", Expires: later}, "claims"},
		"bad aud":     {Grant{Subject: "ann", Expires: later, Audience: []string{"\xff"}}, "audience"},
	} {
		if token, err := s.Sign(tt.grant); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %q, %v; want an error with %q", name, token, err, tt.want)
		}
	}
}

func TestSignersRefuseUnfitKeys(t *testing.T) {
	for name, text := range map[string][]byte{
		"a public key": pairs()[es256].public,
		"no PEM":       []byte("hello"),
		"broken":       []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		"encrypted":    []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"),
	} {
		if _, err := KeySigner(text, ""); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := SecretSigner([]byte("short")); err == nil {
		t.Error("a short secret was accepted")
	}
	for _, kid := range []string{"../x", "a b", strings.Repeat("k", 129)} {
		if _, err := KeySigner(pairs()[es256].private, kid); err == nil {
			t.Errorf("kid %q was accepted", kid)
		}
	}
	if _, _, err := NewKeyPair("RS1024"); err == nil {
		t.Error("RS1024 was accepted")
	}
}

// TestKeysOfOtherToolsAreRead uses the older PEM forms, certificates, and files that
// hold more than a key.
func TestKeysOfOtherToolsAreRead(t *testing.T) {
	private, err := parsePrivatePEM(pairs()[rs256].private)
	if err != nil {
		t.Fatal(err)
	}
	key := private.(*rsa.PrivateKey)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	for kind, der := range map[string][]byte{
		"RSA PUBLIC KEY": x509.MarshalPKCS1PublicKey(&key.PublicKey),
		"CERTIFICATE":    cert,
	} {
		text := append([]byte("a comment\n"), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
		v := newVerifier(t, Config{Keys: Keys{PEM: [][]byte{text}}})
		accepted(t, v, sign(t, keySigner(t, rs256, ""), Grant{}))
	}

	old := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	for name, text := range map[string][]byte{
		"PKCS 1":      old,
		"both halves": append(bytes.Clone(pairs()[eddsa].public), pairs()[es256].private...),
	} {
		if _, err := KeySigner(text, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPrivateKeyYieldsAPublicKeySet(t *testing.T) {
	a, err := MarshalJWKS(pairs()[es256].private)
	if err != nil {
		t.Fatal(err)
	}
	b, err := MarshalJWKS(pairs()[es256].public)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("%v: of the private key\n%s, of the public one\n%s", err, a, b)
	}
	for _, bad := range [][][]byte{nil, {[]byte("hello")}, {pairs()[es256].public, p384(t)}} {
		if _, err := MarshalJWKS(bad...); err == nil {
			t.Errorf("%.40q was accepted", bad)
		}
	}
}
