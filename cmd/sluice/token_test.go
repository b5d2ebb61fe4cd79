package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"sluice/handlers/auth"
)

const testSecret = "a secret of thirty-two bytes, or more"

// made is what one run of `sluice token` left behind.
type made struct {
	out, notes string
	err        error
}

// runToken runs the command alone, as kong runs it.
func runToken(t *testing.T, env map[string]string, args ...string) made {
	t.Helper()
	var out, notes bytes.Buffer
	p := &process{stdin: strings.NewReader(""), stdout: &out, stderr: &notes, getenv: func(name string) string { return env[name] }}
	parser, err := kong.New(&tokenCmd{}, kong.Bind(p), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	command, err := parser.Parse(args)
	if err != nil {
		t.Fatalf("sluice token %q: %v", args, err)
	}
	err = command.Run()
	return made{out.String(), notes.String(), err}
}

// mustToken is runToken where nothing may fail.
func mustToken(t *testing.T, env map[string]string, args ...string) made {
	t.Helper()
	m := runToken(t, env, args...)
	if m.err != nil {
		t.Fatalf("sluice token %q: %v", args, m.err)
	}
	return m
}

// verify checks a token as a gateway with this configuration does.
func verify(t *testing.T, cfg auth.Config, token string) auth.Claims {
	t.Helper()
	v, err := auth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	claims, err := v.Verify(context.Background(), strings.TrimSuffix(token, "\n"))
	if err != nil {
		t.Fatalf("%s: %s", token, auth.Reason(err))
	}
	return claims
}

func secrets(s ...string) auth.Keys {
	var keys auth.Keys
	for _, s := range s {
		keys.Secrets = append(keys.Secrets, []byte(s))
	}
	return keys
}

func TestTokenSaysWhatTheFlagsSay(t *testing.T) {
	m := mustToken(t, nil, "--secret", testSecret, "--sub", "ann", "--subscribe", "chat:*", "--subscribe", "news", "--publish", "chat:lobby",
		"--admin", "--info", `{"name":"Ann, Lee"}`, "--for", "30m", "--issuer", "me", "--audience", "sluice", "--audience", "other")
	if m.notes != "" || strings.Count(m.out, "\n") != 1 {
		t.Errorf("printed %q, noted %q", m.out, m.notes)
	}
	c := verify(t, auth.Config{Keys: secrets(testSecret), Issuer: "me", Audience: "sluice"}, m.out)
	if c.Subject != "ann" || !c.Admin || string(c.Info) != `{"name":"Ann, Lee"}` {
		t.Errorf("got %+v", c)
	}
	if !c.CanSubscribe("chat:x") || !c.CanSubscribe("news") || c.CanSubscribe("x") || !c.CanPublish("chat:lobby") || c.CanPublish("chat:x") {
		t.Errorf("wrong rights: %+v", c)
	}
	if left := time.Until(c.Expires); left < 29*time.Minute || left > 30*time.Minute {
		t.Errorf("it is good for %v", left)
	}
}

func TestTokenTakesWhatTheGatewayHas(t *testing.T) {
	env := map[string]string{"SLUICE_JWT_SECRET": testSecret, "SLUICE_JWT_ISSUER": "me", "SLUICE_JWT_AUDIENCE": "sluice"}
	cfg := auth.Config{Keys: secrets(testSecret), Issuer: "me", Audience: "sluice"}
	m := mustToken(t, env, "--sub", "ann")
	verify(t, cfg, m.out)
	if !strings.Contains(m.notes, "opens no room") {
		t.Errorf("noted %q", m.notes)
	}
	other := strings.Repeat("another ", 5)
	cfg = auth.Config{Keys: secrets(other), Issuer: "you", Audience: "app"}
	verify(t, cfg, mustToken(t, env, "--sub", "ann", "--secret", other, "--issuer", "you", "--audience", "app").out)
}

func TestNewSecretSigns(t *testing.T) {
	secret := strings.TrimSpace(mustToken(t, nil, "--new-key", "HS256").out)
	verify(t, auth.Config{Keys: secrets(secret)}, mustToken(t, nil, "--secret", secret, "--sub", "ann").out)
}

// TestNewKeySignsAndItsKeySetChecks walks the whole way: a key, a token by it, the public
// half for one gateway and a served key set for another.
func TestNewKeySignsAndItsKeySetChecks(t *testing.T) {
	dir := t.TempDir()
	var pubs []string
	var tokens []string
	for _, alg := range []string{"rs256", "es256", "eddsa"} {
		file := filepath.Join(dir, alg+".pem")
		m := mustToken(t, nil, "--new-key", alg, "--out", file)
		if m.out != "" || !strings.Contains(m.notes, file+".pub") {
			t.Errorf("printed %q, noted %q", m.out, m.notes)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		token := mustToken(t, nil, "--key", file, "--sub", "ann").out
		public, err := os.ReadFile(file + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		verify(t, auth.Config{Keys: auth.Keys{PEM: [][]byte{public}}}, token)
		pubs, tokens = append(pubs, "--jwks-from", file+".pub"), append(tokens, token)
	}
	set := mustToken(t, nil, pubs...).out
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(set)) }))
	defer srv.Close()
	for _, token := range tokens {
		verify(t, auth.Config{JWKSURL: srv.URL}, token)
	}
}

func TestNewKeyOnTheTerminalHasBothHalves(t *testing.T) {
	out := mustToken(t, nil, "--new-key", "es256").out
	file := filepath.Join(t.TempDir(), "both.pem")
	if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	_, public, ok := strings.Cut(out, "-----END PRIVATE KEY-----\n")
	if !ok {
		t.Fatalf("no private key in %q", out)
	}
	verify(t, auth.Config{Keys: auth.Keys{PEM: [][]byte{[]byte(public)}}}, mustToken(t, nil, "--key", file, "--sub", "ann").out)
}

func TestNoFileIsReplaced(t *testing.T) {
	dir := t.TempDir()
	here := filepath.Join(dir, "key.pem")
	for _, occupied := range []string{here, here + ".pub"} {
		if err := os.WriteFile(occupied, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		m := runToken(t, nil, "--new-key", "es256", "--out", here)
		if m.err == nil || !strings.Contains(m.err.Error(), occupied+" is there already") {
			t.Errorf("got %v", m.err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		if text, err := os.ReadFile(occupied); err != nil || string(text) != "precious" {
			t.Errorf("%s holds %q, %v", occupied, text, err)
		}
		if err := os.Remove(occupied); err != nil {
			t.Fatal(err)
		}
	}
	m := runToken(t, nil, "--secret", testSecret, "--sub", "ann", "--out", filepath.Join(dir, "no", "such", "dir"))
	if m.err == nil || m.out != "" {
		t.Errorf("got %q, %v", m.out, m.err)
	}
}

func TestTokenIsNotUsedWrongly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "--sub"},
		{[]string{"--sub", "ann"}, "nothing to sign with"},
		{[]string{"--sub", "ann", "--secret", "short"}, "--new-key hs256"},
		{[]string{"--sub", "ann", "--secret", testSecret, "--key", file}, "give one of them"},
		{[]string{"--sub", "ann", "--key", file}, "no private key"},
		{[]string{"--sub", "ann", "--secret", testSecret, "--for", "0s"}, "--for"},
		{[]string{"--sub", "ann", "--secret", testSecret, "--for=-1h"}, "--for"},
		{[]string{"--sub", "ann", "--secret", testSecret, "--info", "{"}, "refused"},
		{[]string{"--sub", "ann", "--secret", testSecret, "--subscribe", "a room"}, "room pattern"},
		{[]string{"--sub", "ann", "--secret", testSecret, "--kid", "k1"}, "--kid"},
		{[]string{"--sub", "a\nb", "--secret", testSecret}, "sub"},
		{[]string{"--new-key", "rsa"}, "RS256"},
		{[]string{"--new-key", "es256", "--sub", "ann"}, "another"},
		{[]string{"--new-key", "es256", "--jwks-from", file}, "give one"},
		{[]string{"--jwks-from", file, "--admin"}, "another"},
		{[]string{"--jwks-from", file}, "PEM"},
	} {
		m := runToken(t, nil, tt.args...)
		var usage *usageError
		if !errors.As(m.err, &usage) || !strings.Contains(m.err.Error(), tt.want) || m.out != "" {
			t.Errorf("sluice token %q: %v; want a wrong use with %q", tt.args, m.err, tt.want)
		}
	}
	for _, args := range [][]string{{"--sub", "ann", "--key", file + "x"}, {"--jwks-from", file + "x"}} {
		if m := runToken(t, nil, args...); m.err == nil {
			t.Errorf("sluice token %q: no error", args)
		}
	}
}
