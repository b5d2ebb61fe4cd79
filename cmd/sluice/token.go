package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"sluice/handlers/auth"
)

// tokenCmd makes what tokens need: the tokens themselves, keys to sign them with, and key
// sets for gateways to check them by. It talks to nobody.
//
// Its flags are for the command line alone ("local"), since their names mean other things
// to other commands. What signs and names a gateway's tokens is taken from the variables
// that the gateway has it from, so that in its environment the flags can be left out.
type tokenCmd struct {
	Secret string `local:"" help:"Sign with this secret (HS256). By default $SLUICE_JWT_SECRET, which does not show in lists of processes." placeholder:"S"`
	Key    string `local:"" help:"Sign with the private key in this PEM file (RS256, ES256 or EdDSA)." type:"path" placeholder:"FILE"`
	Kid    string `local:"" help:"Name of --key in the token. By default its thumbprint." placeholder:"ID"`

	Sub       string        `local:"" help:"Whom the token is for." placeholder:"NAME"`
	Subscribe []string      `local:"" help:"Rooms to read; * stands for any run of characters. Repeatable." sep:"none" placeholder:"P"`
	Publish   []string      `local:"" help:"Rooms to write to. Repeatable." sep:"none" placeholder:"P"`
	Admin     bool          `local:"" help:"The bearer may list and purge rooms, and revoke tokens."`
	Info      string        `local:"" help:"What presence shows of the bearer, as JSON." placeholder:"JSON"`
	For       time.Duration `local:"" help:"How long the token is good." default:"1h" placeholder:"TIME"`
	Issuer    string        `local:"" help:"Who makes the token (iss). By default $SLUICE_JWT_ISSUER." placeholder:"NAME"`
	Audience  []string      `local:"" help:"Whom it is made for (aud). Repeatable. By default $SLUICE_JWT_AUDIENCE." sep:"none" placeholder:"NAME"`

	NewKey   string   `local:"" help:"Make no token but a key: hs256 (a secret), rs256, es256 or eddsa." placeholder:"ALG"`
	JWKSFrom []string `local:"" name:"jwks-from" help:"Make no token but a key set (JWKS) of the public keys in this PEM file. Repeatable." sep:"none" type:"path" placeholder:"FILE"`
	Out      string   `local:"" help:"Write to this new file rather than to the terminal; of a new key the public half goes to FILE.pub." type:"path" placeholder:"FILE"`
}

// Run makes one thing and prints it, or writes it to the file of --out.
func (c *tokenCmd) Run(p *process) error {
	switch {
	case c.NewKey != "" && len(c.JWKSFrom) > 0:
		return usagef("--new-key and --jwks-from make different things; give one of them")
	case (c.NewKey != "" || len(c.JWKSFrom) > 0) && c.signs():
		return usagef("a token is one run, a key or a key set is another: leave out --sub and the other flags of tokens")
	case c.NewKey != "":
		return c.newKey(p)
	case len(c.JWKSFrom) > 0:
		return c.jwks(p)
	}
	return c.token(p)
}

// signs tells whether a flag was given that says something of a token.
func (c *tokenCmd) signs() bool {
	lists := len(c.Subscribe) + len(c.Publish) + len(c.Audience)
	return c.Secret+c.Key+c.Kid+c.Sub+c.Info+c.Issuer != "" || lists > 0 || c.Admin
}

func (c *tokenCmd) token(p *process) error {
	if c.Sub == "" {
		return usagef("whom is the token for? Say --sub NAME (or make a key with --new-key)")
	}
	if c.For < time.Second {
		return usagef("--for %v: a token is good for a second at least", c.For)
	}
	signer, err := c.signer(p)
	if err != nil {
		return err
	}
	if c.Issuer == "" {
		c.Issuer = p.getenv("SLUICE_JWT_ISSUER")
	}
	if audience := p.getenv("SLUICE_JWT_AUDIENCE"); len(c.Audience) == 0 && audience != "" {
		c.Audience = []string{audience}
	}
	now := time.Now()
	grant := auth.Grant{
		Subject:   c.Sub,
		Issuer:    c.Issuer,
		Audience:  c.Audience,
		IssuedAt:  now,
		Expires:   now.Add(c.For),
		Subscribe: c.Subscribe,
		Publish:   c.Publish,
		Admin:     c.Admin,
	}
	if c.Info != "" {
		grant.Info = json.RawMessage(c.Info)
	}
	token, err := signer.Sign(grant)
	if err != nil {
		return usagef("%v", err)
	}
	if len(c.Subscribe)+len(c.Publish) == 0 && !c.Admin {
		p.notef("this token opens no room; --subscribe and --publish say which, --subscribe '*' all")
	}
	return c.write(p, token+"\n")
}

// signer finds what to sign with: a flag, else the gateway's own variable.
func (c *tokenCmd) signer(p *process) (*auth.Signer, error) {
	if c.Secret != "" && c.Key != "" {
		return nil, usagef("--secret and --key both sign; give one of them")
	}
	if c.Key != "" {
		text, err := os.ReadFile(c.Key)
		if err != nil {
			return nil, fmt.Errorf("reading the key: %w", err)
		}
		signer, err := auth.KeySigner(text, c.Kid)
		if err != nil {
			return nil, usagef("%s: %v", c.Key, err)
		}
		return signer, nil
	}
	if c.Secret == "" {
		c.Secret = p.getenv("SLUICE_JWT_SECRET")
	}
	if c.Secret == "" {
		return nil, usagef("nothing to sign with: give --secret, --key or $SLUICE_JWT_SECRET, the same as the gateway has (or make one with --new-key)")
	}
	if c.Kid != "" {
		return nil, usagef("--kid names a --key; a secret has no name, and gateways refuse a token that gives it one")
	}
	signer, err := auth.SecretSigner([]byte(c.Secret))
	if err != nil {
		return nil, usagef("%v", err)
	}
	return signer, nil
}

// newKey prints both halves of a key, or writes them side by side.
func (c *tokenCmd) newKey(p *process) error {
	if strings.EqualFold(c.NewKey, "hs256") {
		return c.write(p, auth.NewSecret()+"\n")
	}
	private, public, err := auth.NewKeyPair(c.NewKey)
	if err != nil {
		return usagef("--new-key: %v", strings.TrimSpace(err.Error()))
	}
	if c.Out == "" {
		return c.write(p, string(private)+string(public))
	}
	open := c.Out + ".pub"
	if err := writeNew(open, 0o644, string(public)); err != nil {
		return err
	}
	if err := c.write(p, string(private)); err != nil {
		// Half of a key is of no use, and would be in the way of the next try.
		return errors.Join(err, os.Remove(open))
	}
	p.notef("%s signs (sluice token --key) and is for nobody else; %s checks (sluice serve --jwt-key)", c.Out, open)
	return nil
}

func (c *tokenCmd) jwks(p *process) error {
	texts := make([][]byte, len(c.JWKSFrom))
	for i, name := range c.JWKSFrom {
		var err error
		if texts[i], err = os.ReadFile(name); err != nil {
			return fmt.Errorf("reading a public key: %w", err)
		}
	}
	set, err := auth.MarshalJWKS(texts...)
	if err != nil {
		return usagef("--jwks-from: %v", err)
	}
	return c.write(p, string(set))
}

// write puts a result where it was asked for. A file is for its owner alone, whatever it
// holds: a token opens rooms as a key does.
func (c *tokenCmd) write(p *process, text string) error {
	if c.Out != "" {
		return writeNew(c.Out, 0o600, text)
	}
	if _, err := p.stdout.Write([]byte(text)); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}

// writeNew makes a file that does not exist yet, whole or not at all. It never replaces
// one: a key that is overwritten is gone, and so is what it signed.
func writeNew(name string, mode os.FileMode, text string) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already and stays as it is; name another file, or remove it", name)
	}
	if err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing: %w", errors.Join(err, os.Remove(name)))
	}
	return nil
}
