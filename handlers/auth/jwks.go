package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxKeys is how many keys a set may have: a token without a kid is tried with each.
const maxKeys = 32

// jwk is a public key as RFC 7517 writes it, and what tells that it is not for us.
type jwk struct {
	Kty     string         `json:"kty"`
	Use     string         `json:"use,omitempty"`
	KeyOps  []string       `json:"key_ops,omitempty"`
	Alg     string         `json:"alg,omitempty"`
	Kid     string         `json:"kid,omitempty"`
	Crv     string         `json:"crv,omitempty"`
	N       string         `json:"n,omitempty"`
	E       string         `json:"e,omitempty"`
	X       string         `json:"x,omitempty"`
	Y       string         `json:"y,omitempty"`
	Private jsontext.Value `json:"d,omitzero"`
}

type jwkSet struct {
	Keys []jsontext.Value `json:"keys"`
}

// parseJWKS reads a key set. Keys that cannot be used are left out, each with a reason;
// a set without any that can is an error.
func parseJWKS(b []byte) (set *keySet, ignored []string, err error) {
	var doc jwkSet
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, nil, errors.New("it is no key set: " + jsonReason(err))
	}
	if len(doc.Keys) > maxKeys {
		return nil, nil, fmt.Errorf("it has %d keys: at most %d", len(doc.Keys), maxKeys)
	}
	var keys []*key
	for i, raw := range doc.Keys {
		k, err := parseJWK(raw)
		if err != nil {
			ignored = append(ignored, fmt.Sprintf("key %d: %v", i, err))
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, ignored, errors.New("it has no key that could be used")
	}
	return newKeySet(keys), ignored, nil
}

func parseJWK(raw jsontext.Value) (*key, error) {
	var j jwk
	if err := json.Unmarshal(raw, &j); err != nil {
		return nil, errors.New("it is no key: " + jsonReason(err))
	}
	if j.Private != nil {
		return nil, errors.New("it is a private key, in public")
	}
	if j.Use != "" && j.Use != "sig" || len(j.KeyOps) > 0 && !slices.Contains(j.KeyOps, "verify") {
		return nil, errors.New("it is not for signatures")
	}
	if j.Kid != "" && !validKid(j.Kid) {
		return nil, errors.New("its kid " + quote(j.Kid) + " is not one")
	}
	public, err := j.public()
	if err != nil {
		return nil, err
	}
	k, err := newPublicKey(j.Kid, public)
	if err != nil {
		return nil, err
	}
	if j.Alg != "" && j.Alg != k.alg {
		return nil, fmt.Errorf("it is for the algorithm %s, not for %s", quote(j.Alg), k.alg)
	}
	return k, nil
}

// public returns the key that j describes. A symmetric one ("oct") is none: a secret
// that can be fetched is not a secret.
func (j jwk) public() (crypto.PublicKey, error) {
	switch {
	case j.Kty == "RSA":
		return j.rsa()
	case j.Kty == "EC" && j.Crv == "P-256":
		x, okX := decodeBase64(j.X)
		y, okY := decodeBase64(j.Y)
		if !okX || !okY || len(x) != 32 || len(y) != 32 {
			return nil, errors.New("its x or y is not a coordinate on P-256")
		}
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	case j.Kty == "OKP" && j.Crv == "Ed25519":
		x, ok := decodeBase64(j.X)
		if !ok || len(x) != ed25519.PublicKeySize {
			return nil, errors.New("its x is not an Ed25519 key")
		}
		return ed25519.PublicKey(x), nil
	}
	return nil, fmt.Errorf("kty %s, crv %s: use RSA, EC with P-256, or OKP with Ed25519", quote(j.Kty), quote(j.Crv))
}

func (j jwk) rsa() (crypto.PublicKey, error) {
	n, okN := decodeBase64(j.N)
	e, okE := decodeBase64(j.E)
	if !okN || !okE || len(n) > maxRSABits/8+1 || len(e) == 0 || len(e) > 4 {
		return nil, errors.New("its n or e is not part of an RSA key")
	}
	exponent := new(big.Int).SetBytes(e).Int64()
	if exponent > 1<<31-1 {
		return nil, errors.New("its e is too large")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent)}, nil
}

// newJWK is the way back: a public key as RFC 7517 writes it, with its thumbprint
// (RFC 7638) as kid.
func newJWK(public crypto.PublicKey) (jwk, error) {
	k, err := newPublicKey("", public)
	if err != nil {
		return jwk{}, err
	}
	text := base64.RawURLEncoding.EncodeToString
	j := jwk{Use: "sig", Alg: k.alg}
	var canonical string // members in order of their names, as the thumbprint wants them
	switch p := public.(type) {
	case *rsa.PublicKey:
		j.Kty, j.N, j.E = "RSA", text(p.N.Bytes()), text(big.NewInt(int64(p.E)).Bytes())
		canonical = fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, j.E, j.N)
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil {
			return jwk{}, fmt.Errorf("encoding an EC key: %w", err)
		}
		j.Kty, j.Crv, j.X, j.Y = "EC", "P-256", text(point[1:33]), text(point[33:])
		canonical = fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, j.X, j.Y)
	case ed25519.PublicKey:
		j.Kty, j.Crv, j.X = "OKP", "Ed25519", text(p)
		canonical = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, j.X)
	}
	sum := sha256.Sum256([]byte(canonical))
	j.Kid = text(sum[:])
	return j, nil
}
