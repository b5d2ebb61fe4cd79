package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// The algorithms, by their names in a token's header.
const (
	hs256 = "HS256"
	rs256 = "RS256"
	es256 = "ES256"
	eddsa = "EdDSA"
)

const (
	minSecret  = 32   // bytes: as much as HMAC-SHA256 can use
	minRSABits = 2048 // what still counts as safe
	maxRSABits = 8192 // more only costs time
)

// methods are the algorithms there are; what is not in it does not exist for us.
var methods = map[string]jwt.SigningMethod{
	hs256: jwt.SigningMethodHS256,
	rs256: jwt.SigningMethodRS256,
	es256: jwt.SigningMethodES256,
	eddsa: jwt.SigningMethodEdDSA,
}

// key checks signatures. Its algorithm is its own and follows from what it is made of:
// a token whose header names another one does not reach it.
type key struct {
	id  string // empty for configured keys, which have no name
	alg string
	of  any // what the algorithm's method wants: []byte, *rsa.PublicKey and so on
}

func (k *key) signed(t unverified) bool {
	return t.alg == k.alg && methods[k.alg].Verify(t.signed, t.signature, k.of) == nil
}

// keySet is what a token's kid and alg are looked up in. It never changes.
type keySet struct {
	byID    map[string][]*key // an id may belong to keys of several kinds
	unnamed []*key            // from files, and tried whatever the kid: it only says what the issuer calls it
	all     []*key
}

func newKeySet(keys []*key) *keySet {
	s := &keySet{byID: map[string][]*key{}, all: keys}
	for _, k := range keys {
		switch {
		case k.id != "":
			s.byID[k.id] = append(s.byID[k.id], k)
		case k.alg != hs256: // a secret has no name, so a token that names its key means another one
			s.unnamed = append(s.unnamed, k)
		}
	}
	return s
}

// signed reports whether one of the keys that t can mean signed it, and whether there
// was any to try. A token without a kid can mean every key of its algorithm.
func (s *keySet) signed(t unverified) (found, ok bool) {
	lists := [2][]*key{s.all}
	if t.kid != "" {
		lists = [2][]*key{s.byID[t.kid], s.unnamed}
	}
	for _, list := range lists {
		for _, k := range list {
			found = found || k.alg == t.alg
			if k.signed(t) {
				return true, true
			}
		}
	}
	return found, false
}

func (k Keys) empty() bool { return len(k.Secrets) == 0 && len(k.PEM) == 0 }

func newStaticSet(cfg Keys) (*keySet, error) {
	var keys []*key
	for _, secret := range cfg.Secrets {
		if err := checkSecret(secret); err != nil {
			return nil, err
		}
		keys = append(keys, &key{alg: hs256, of: bytes.Clone(secret)})
	}
	for _, text := range cfg.PEM {
		public, err := parsePublicPEM(text)
		if err != nil {
			return nil, err
		}
		for _, p := range public {
			k, err := newPublicKey("", p)
			if err != nil {
				return nil, err
			}
			keys = append(keys, k)
		}
	}
	return newKeySet(keys), nil
}

// checkSecret refuses secrets that can be guessed, and the classic mix-up: a public key
// used as a secret lets everybody sign.
func checkSecret(secret []byte) error {
	if bytes.Contains(secret, []byte("-----BEGIN")) {
		return errors.New("the secret for tokens is a PEM file: give it as a key, not as a secret")
	}
	if len(secret) < minSecret {
		return fmt.Errorf("the secret for tokens has %d bytes and can be guessed; it needs %d: make one with `sluice token --new-key hs256`", len(secret), minSecret)
	}
	return nil
}

// newPublicKey gives a public key the one algorithm that it will be used with, and
// refuses keys that are too weak for it.
func newPublicKey(id string, public crypto.PublicKey) (*key, error) {
	switch p := public.(type) {
	case *rsa.PublicKey:
		if bits := p.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits: use %d to %d", bits, minRSABits, maxRSABits)
		}
		if p.E < 3 || p.E%2 == 0 || p.N.Bit(0) == 0 {
			return nil, errors.New("an RSA key with an even modulus, or an exponent that is even or below 3")
		}
		return &key{id: id, alg: rs256, of: p}, nil
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			return nil, fmt.Errorf("an EC key on the curve %s: use P-256", p.Curve.Params().Name)
		}
		return &key{id: id, alg: es256, of: p}, nil
	case ed25519.PublicKey:
		return &key{id: id, alg: eddsa, of: p}, nil
	}
	return nil, fmt.Errorf("a key of the kind %T: use RSA, EC (P-256) or Ed25519", public)
}

// parsePublicPEM reads all public keys of a PEM text, of which there must be one. A
// private key is refused: whoever only checks tokens should not be able to make them.
func parsePublicPEM(text []byte) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if strings.Contains(block.Type, "PRIVATE KEY") {
			return nil, errors.New("the key for tokens is a private one; checking needs only the public one: `sluice token --new-key … --out FILE` writes it to FILE.pub")
		}
		public, err := parsePublicBlock(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, public)
	}
	if len(keys) == 0 {
		return nil, errors.New("no PEM in the key for tokens: it begins with -----BEGIN PUBLIC KEY-----")
	}
	return keys, nil
}

func parsePublicBlock(block *pem.Block) (crypto.PublicKey, error) {
	var public crypto.PublicKey
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			public = cert.PublicKey
		}
	default:
		return nil, fmt.Errorf("a PEM block %s is no key for tokens", quote(block.Type))
	}
	if err != nil {
		return nil, fmt.Errorf("reading a public key: %w", err)
	}
	return public, nil
}
