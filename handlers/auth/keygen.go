package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// NewSecret returns a fresh secret for HS256: 256 random bits as 43 characters. It is
// used as it stands, character by character.
func NewSecret() string {
	var b [minSecret]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// NewKeyPair returns a fresh key for "RS256", "ES256" or "EdDSA" (in any case) as two
// PEM texts: the private half for the Signer, the public one for the Verifier.
func NewKeyPair(alg string) (private, public []byte, err error) {
	var key crypto.Signer
	switch strings.ToLower(alg) {
	case "rs256":
		key, err = rsa.GenerateKey(rand.Reader, minRSABits)
	case "es256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "eddsa":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, nil, fmt.Errorf("no keys for %s: use RS256, ES256 or EdDSA", quote(alg))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the private key: %w", err)
	}
	open, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: open}), nil
}

// MarshalJWKS writes the public keys of PEM texts as a key set to serve at a JWKSURL.
// Of a text with a private key, the public half is taken; nothing private gets out.
func MarshalJWKS(texts ...[]byte) ([]byte, error) {
	var set jwkSet
	for _, text := range texts {
		public, err := publicKeys(text)
		if err != nil {
			return nil, err
		}
		for _, p := range public {
			j, err := newJWK(p)
			if err != nil {
				return nil, err
			}
			raw, err := json.Marshal(j)
			if err != nil {
				return nil, fmt.Errorf("writing a key: %w", err)
			}
			set.Keys = append(set.Keys, raw)
		}
	}
	if len(set.Keys) == 0 || len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("a key set has 1 to %d keys", maxKeys)
	}
	b, err := json.Marshal(set, jsontext.WithIndent("  "))
	if err != nil {
		return nil, errors.New("writing the key set: " + err.Error())
	}
	return append(b, '\n'), nil
}

func publicKeys(text []byte) ([]crypto.PublicKey, error) {
	if private, err := parsePrivatePEM(text); err == nil {
		return []crypto.PublicKey{private.Public()}, nil
	}
	return parsePublicPEM(text)
}
