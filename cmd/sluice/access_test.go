package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFlagsOfAccessThatMakeNoSenseAreRefused(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--jwt-issuer=x"}, "--jwt-issuer"},
		{[]string{"--public-subscribe=*"}, "--public-subscribe"},
		{[]string{"--strict-tickets"}, "--strict-tickets"},
		{[]string{"--jwt-secret=short"}, "32"},
		{[]string{"--jwks=http://issuer.example/jwks"}, "https"},
		{[]string{"--trusted-proxy=everybody"}, "--trusted-proxy"},
		{[]string{"--cors-origin=app.example"}, "--cors-origin"},
		{[]string{"--cors-origin=null"}, "--cors-origin"},
		{[]string{"--publish-rate=-1"}, "--publish-rate"},
		{[]string{"--jwt-secret=" + strings.Repeat("s", 32), "--public-publish=a b"}, "--public-publish"},
	} {
		_, stderr := sluice(t, 2, append([]string{"serve", "--listen=127.0.0.1:0", "--admin="}, c.args...)...)
		if !strings.Contains(stderr, c.want) {
			t.Errorf("serve %q says %q, want %q", c.args, stderr, c.want)
		}
	}
}

// TestKeysAreReadAgain has a node learn a new key without a restart.
func TestKeysAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	first, second, used := filepath.Join(dir, "first.pem"), filepath.Join(dir, "second.pem"), filepath.Join(dir, "used.pem")
	var public [2][]byte
	for i, name := range []string{first, second} {
		sluice(t, 0, "token", "--new-key=eddsa", "--out="+name)
		var err error
		if public[i], err = os.ReadFile(name + ".pub"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(used, public[0], 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, strings.NewReader(""), nil, "serve", "--listen=127.0.0.1:0", "--admin=", "--log-format=json", "--jwt-key="+used)
	p.err.await(t, `"access":"tokens"`)
	url := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(p.err.String())
	status := func(key string) int {
		t.Helper()
		token, _ := sluice(t, 0, "token", "--key="+key, "--sub=ann", "--publish=*")
		req, err := http.NewRequest(http.MethodPost, url+"/rooms/lobby/events", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(token))
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	if a, b := status(first), status(second); a != 201 || b != 401 {
		t.Errorf("before: %d and %d, want 201 and 401", a, b)
	}
	reload := func(text []byte, wait string) {
		t.Helper()
		if err := os.WriteFile(used, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		p.err.await(t, wait)
	}
	reload([]byte("no key"), "stays as it is")
	if got := status(first); got != 201 {
		t.Errorf("after a key that is none: %d, want 201", got)
	}
	reload(public[1], "were read again")
	if a, b := status(first), status(second); a != 401 || b != 201 {
		t.Errorf("after: %d and %d, want 401 and 201", a, b)
	}
}
