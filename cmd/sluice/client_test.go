package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
)

func answer(status int, kind, body string, header ...string) *http.Response {
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", kind)
	for i := 0; i < len(header); i += 2 {
		w.Header().Set(header[i], header[i+1])
	}
	w.WriteHeader(status)
	io.WriteString(w, body)
	return w.Result()
}

func TestRefusalsAreReadable(t *testing.T) {
	for _, c := range []struct {
		resp *http.Response
		want []string
	}{
		{answer(401, "application/problem+json", `{"title":"Unauthorized","detail":"the token has expired"}`), []string{"401", "the token has expired", "--token"}},
		{answer(403, "application/problem+json; charset=utf-8", `{"title":"Forbidden"}`), []string{"403", "Forbidden", "token"}},
		{answer(404, "text/html", `<html>nginx</html>`), []string{"404", "not found (text/html)", "--url"}},
		{answer(502, "text/plain", "upstream\ndown\x1b[2J"), []string{"502", `upstream down\x1b[2J`}},
		{answer(500, "application/problem+json", `{`), []string{"500", "internal server error"}},
		{answer(503, "text/plain", strings.Repeat("é", 10000)), []string{"503", "é…"}},
	} {
		err := refused(c.resp)
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%d: %q lacks %q", c.resp.StatusCode, err, want)
			}
		}
		if len(err.Error()) > 400 || strings.Contains(err.Error(), "<html>") {
			t.Errorf("%d: %q is more than a person wants to read", c.resp.StatusCode, err)
		}
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	now := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "7s": 0, "99999999999999999999": 0,
		"Sat, 21 Nov 2026 20:00:30 GMT": 30 * time.Second,
		"Sat, 21 Nov 2026 19:00:00 GMT": 0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}

func TestBackoffDoublesUpToItsMostAndNeverLeavesItsHalf(t *testing.T) {
	for _, failures := range []int{0, 1, 2, 3, 5, 19, 20, 1000} {
		want := 10 * time.Second
		if failures < 5 {
			want = min(want, time.Second<<failures)
		}
		for range 100 {
			if got := backoff(failures, time.Second, 10*time.Second); got < want/2 || got > want {
				t.Fatalf("%d failures: %v, want %v to %v", failures, got, want/2, want)
			}
		}
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		if err := sleep(t.Context(), time.Minute); err != nil || time.Since(begun) != time.Minute {
			t.Errorf("%v after %v, want nil after a minute", err, time.Since(begun))
		}
	})
}

func TestAddressesKeepThePathOfTheGateway(t *testing.T) {
	gw, err := gatewayFlags{URL: "https://example.com/sub/?x=1#y"}.open()
	if err != nil {
		t.Fatal(err)
	}
	defer gw.close()
	if got, want := gw.at(nil, "rooms", "chat:a b/..", "events").String(), "https://example.com/sub/rooms/chat:a%20b%2F../events"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzPrintable: nothing that a terminal obeys comes through, and what is harmless stays as it is.
func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"hello", "\x1b[31mred", "a\u202eb", "\u009b2J", "\xff", "\u2028", "héllo ✓", "\x7f\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := printable(s)
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("%q becomes %q, which holds %U", s, got, r)
			}
		}
		if again := printable(got); again != got {
			t.Errorf("%q becomes %q and then %q", s, got, again)
		}
		if line := oneLine(s); strings.ContainsAny(line, "\r\n") {
			t.Errorf("%q becomes the lines %q", s, line)
		}
	})
}
