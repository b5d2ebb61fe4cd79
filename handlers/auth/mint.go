package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	stdjson "encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Signer makes tokens. Gateways do not need one; whoever knows the users does.
type Signer struct {
	alg, kid string
	key      any // what the algorithm's method wants: []byte, *rsa.PrivateKey and so on
}

// SecretSigner signs with HS256, and names no key: a secret has no kid.
func SecretSigner(secret []byte) (*Signer, error) {
	if err := checkSecret(secret); err != nil {
		return nil, err
	}
	return &Signer{alg: hs256, key: bytes.Clone(secret)}, nil
}

// KeySigner signs with the first private key of a PEM text: RSA, EC on P-256 or Ed25519.
// An empty kid becomes the key's thumbprint, as in what MarshalJWKS writes.
func KeySigner(text []byte, kid string) (*Signer, error) {
	private, err := parsePrivatePEM(text)
	if err != nil {
		return nil, err
	}
	j, err := newJWK(private.Public())
	if err != nil {
		return nil, err
	}
	if kid == "" {
		kid = j.Kid
	}
	if !validKid(kid) {
		return nil, errKid
	}
	return &Signer{alg: j.Alg, kid: kid, key: private}, nil
}

var errKid = errors.New("a kid is up to 128 letters, digits and -_.~:#+/=@, without two dots in a row")

// Grant is what a token is to say.
type Grant struct {
	Subject   string
	Issuer    string    // left out if empty
	Audience  []string  // left out if empty
	IssuedAt  time.Time // whole seconds count, as for the others
	NotBefore time.Time // left out if zero
	Expires   time.Time

	Subscribe, Publish []string // room patterns
	Admin              bool
	Info               stdjson.RawMessage // JSON shown with presence; left out if nil
}

// Sign returns a token. What a Verifier would refuse is not signed.
func (s *Signer) Sign(g Grant) (string, error) {
	if g.Info != nil && !jsontext.Value(g.Info).IsValid() {
		return "", errors.New("this token would be refused: info is not JSON, or has a name twice")
	}
	p, err := g.payload()
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("writing the claims: %w", err)
	}
	if _, _, err := parseClaims(claims); err != nil {
		return "", fmt.Errorf("this token would be refused: %s", Reason(err))
	}
	head, err := json.Marshal(struct {
		Alg string `json:"alg"`
		Typ string `json:"typ"`
		Kid string `json:"kid,omitempty"`
	}{s.alg, "JWT", s.kid})
	if err != nil {
		return "", fmt.Errorf("writing the header: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString
	signed := text(head) + "." + text(claims)
	signature, err := methods[s.alg].Sign(signed, s.key)
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	token := signed + "." + text(signature)
	if len(token) > maxToken {
		return "", errors.New("this token would be refused: it is longer than 8 KiB; give it fewer patterns or less info")
	}
	return token, nil
}

// payload is the grant as the wire has it.
func (g Grant) payload() (payload, error) {
	seconds := func(t time.Time) *float64 {
		if t.IsZero() {
			return nil
		}
		return new(float64(t.Unix()))
	}
	p := payload{
		Issuer:    g.Issuer,
		Subject:   g.Subject,
		Expires:   seconds(g.Expires),
		NotBefore: seconds(g.NotBefore),
		IssuedAt:  seconds(g.IssuedAt),
		Sluice: rights{
			Subscribe: g.Subscribe,
			Publish:   g.Publish,
			Admin:     g.Admin,
			Info:      jsontext.Value(g.Info),
		},
	}
	if len(g.Audience) == 0 {
		return p, nil
	}
	var audience any = g.Audience
	if len(g.Audience) == 1 {
		audience = g.Audience[0]
	}
	var err error
	if p.Audience, err = json.Marshal(audience); err != nil {
		return payload{}, fmt.Errorf("writing the audience: %w", err)
	}
	return p, nil
}

// parsePrivatePEM returns the first private key of a PEM text.
func parsePrivatePEM(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var private any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			private, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			if strings.Contains(block.Type, "ENCRYPTED") {
				return nil, errors.New("the key is encrypted: decrypt it first (openssl pkey -in FILE)")
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading a private key: %w", err)
		}
		switch k := private.(type) {
		case *rsa.PrivateKey:
			return k, nil
		case *ecdsa.PrivateKey:
			return k, nil
		case ed25519.PrivateKey:
			return k, nil
		}
		return nil, fmt.Errorf("a key of the kind %T cannot sign: use RSA, EC (P-256) or Ed25519", private)
	}
	return nil, errors.New("no private key: a PEM file with one begins with -----BEGIN PRIVATE KEY-----")
}
