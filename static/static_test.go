package static

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/html"

	"sluice/static/browsertest"
)

// chromium is the browser of all tests here that need one.
var chromium browsertest.Chromium

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	code := m.Run()
	err := chromium.Stop()
	if code != 0 {
		return code
	}
	if err := errors.Join(err, goleak.Find()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// ask sends a request to the handler and returns the answer with its body read.
func ask(t *testing.T, method, path string, header ...string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	answer := w.Result()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("reading the answer to %s %s: %v", method, path, err)
	}
	return answer, string(body)
}

func TestEveryPathIsServedWithItsType(t *testing.T) {
	types := map[string]string{
		"/":              "text/html; charset=utf-8",
		"/chat/chat.css": "text/css; charset=utf-8",
		"/icon.svg":      "image/svg+xml",

		"/sluice.js":        "text/javascript; charset=utf-8",
		"/sluice.global.js": "text/javascript; charset=utf-8",
		"/sluice.d.ts":      "text/plain; charset=utf-8",

		"/dashboard":           "text/html; charset=utf-8",
		"/dashboard.css":       "text/css; charset=utf-8",
		"/dashboard.js":        "text/javascript; charset=utf-8",
		"/dashboard-charts.js": "text/javascript; charset=utf-8",
		"/dashboard-nodes.js":  "text/javascript; charset=utf-8",
		"/dashboard-room.js":   "text/javascript; charset=utf-8",
	}
	for _, path := range modules() {
		types[path] = "text/javascript; charset=utf-8"
	}
	for _, path := range Paths() {
		answer, body := ask(t, http.MethodGet, path)
		if answer.StatusCode != http.StatusOK || body == "" {
			t.Errorf("GET %s: status %d and %d bytes, want 200 and some", path, answer.StatusCode, len(body))
		}
		if got := answer.Header.Get("Content-Type"); got != types[path] {
			t.Errorf("GET %s: Content-Type %q, want %q", path, got, types[path])
		}
		head, none := ask(t, http.MethodHead, path)
		if head.StatusCode != http.StatusOK || none != "" || head.ContentLength != int64(len(body)) {
			t.Errorf("HEAD %s: status %d, length %d, body %q; want 200, %d and no body", path, head.StatusCode, head.ContentLength, none, len(body))
		}
	}
	if got := len(Paths()); got != len(types) {
		t.Errorf("%d paths are served and %d are known to this test", got, len(types))
	}
}

func TestTheListOfPathsIsTheCallersOwn(t *testing.T) {
	Paths()[0] = "/elsewhere"
	if got := Paths()[0]; got != "/" {
		t.Errorf("the first path became %q after a caller changed its list", got)
	}
}

func TestTheQueryIsForThePage(t *testing.T) {
	if answer, _ := ask(t, http.MethodGet, "/?room=lobby"); answer.StatusCode != http.StatusOK {
		t.Errorf("GET /?room=lobby: status %d, want 200", answer.StatusCode)
	}
}

func TestOtherPathsAndMethodsAreRefused(t *testing.T) {
	for _, path := range []string{"/index.html", "/static.go", "/chat/main.js/", "/chat/", "/../icon.svg", "/rooms", "//"} {
		if answer, _ := ask(t, http.MethodGet, path); answer.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: status %d, want 404", path, answer.StatusCode)
		}
	}
	answer, _ := ask(t, http.MethodPost, "/")
	if answer.StatusCode != http.StatusMethodNotAllowed || answer.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /: status %d, Allow %q; want 405 and GET, HEAD", answer.StatusCode, answer.Header.Get("Allow"))
	}
}

func TestAFileIsSentOnceAsLongAsItStaysTheSame(t *testing.T) {
	tags := make(map[string]bool)
	for _, path := range Paths() {
		answer, _ := ask(t, http.MethodGet, path)
		tag := answer.Header.Get("ETag")
		if !regexp.MustCompile(`^"[^"]{16,}"$`).MatchString(tag) || tags[tag] {
			t.Fatalf("GET %s: ETag %s, want a strong one of its own", path, tag)
		}
		tags[tag] = true
		if got := answer.Header.Get("Cache-Control"); got != "no-cache" {
			t.Errorf("GET %s: Cache-Control %q, want no-cache: keep it, but ask", path, got)
		}
		again, body := ask(t, http.MethodGet, path, "If-None-Match", tag)
		if again.StatusCode != http.StatusNotModified || body != "" || again.Header.Get("ETag") != tag {
			t.Errorf("GET %s with its ETag: status %d, %d bytes, ETag %s; want 304, none and %s", path, again.StatusCode, len(body), again.Header.Get("ETag"), tag)
		}
		if other, _ := ask(t, http.MethodGet, path, "If-None-Match", `"another"`); other.StatusCode != http.StatusOK {
			t.Errorf("GET %s with another ETag: status %d, want 200", path, other.StatusCode)
		}
	}
}

func TestEveryAnswerCarriesThePolicy(t *testing.T) {
	for _, path := range append(Paths(), "/nowhere") {
		answer, _ := ask(t, http.MethodGet, path)
		got := strings.Split(answer.Header.Get("Content-Security-Policy"), "; ")
		for _, want := range []string{
			"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self'",
			"base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("GET %s: the policy %q lacks %q", path, got, want)
			}
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"} {
			if got := answer.Header.Get(name); got != want {
				t.Errorf("GET %s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
}

// elements returns the start tags of a page.
func elements(t *testing.T, path string) []html.Token {
	t.Helper()
	_, page := ask(t, http.MethodGet, path)
	var found []html.Token
	for z := html.NewTokenizer(strings.NewReader(page)); ; {
		switch z.Next() {
		case html.ErrorToken:
			return found
		case html.StartTagToken, html.SelfClosingTagToken:
			found = append(found, z.Token())
		}
	}
}

func attribute(e html.Token, name string) string {
	for _, a := range e.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func TestThePageHasNothingInline(t *testing.T) {
	for _, e := range elements(t, "/") {
		if e.Data == "style" || e.Data == "script" && attribute(e, "src") == "" {
			t.Errorf("inline %s, which the policy forbids", e)
		}
		for _, a := range e.Attr {
			if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
				t.Errorf("%s has the attribute %s, which the policy forbids", e, a.Key)
			}
		}
	}
}

func TestThePageAsksForNothingElse(t *testing.T) {
	for _, e := range elements(t, "/") {
		for _, name := range []string{"src", "href", "action"} {
			value := attribute(e, name)
			if value == "" || strings.HasPrefix(value, "#") {
				continue
			}
			u, err := url.Parse(value)
			if err != nil || u.IsAbs() || u.Host != "" || !slices.Contains(Paths(), u.Path) {
				t.Errorf("%s points to %q, which is not served here", e, value)
			}
		}
	}
}

// modules are the paths of the chat's scripts.
func modules() []string {
	return slices.DeleteFunc(Paths(), func(path string) bool { return !strings.HasPrefix(path, "/chat/") || !strings.HasSuffix(path, ".js") })
}

// script is all of the chat's scripts.
func script(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, path := range modules() {
		_, body := ask(t, http.MethodGet, path)
		all.WriteString(body)
	}
	return all.String()
}

func TestEachModuleIsServedAndUsed(t *testing.T) {
	entries, err := files.ReadDir("chat")
	if err != nil {
		t.Fatal(err)
	}
	imported := regexp.MustCompile(`from '\./([a-z]+\.js)'`).FindAllStringSubmatch(script(t), -1)
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".js") {
			continue
		}
		if !slices.Contains(modules(), "/chat/"+name) {
			t.Errorf("%s is embedded and not served", name)
		}
		if used := func(m []string) bool { return m[1] == name }; name != "main.js" && !slices.ContainsFunc(imported, used) {
			t.Errorf("%s is used by no other module", name)
		}
	}
	for _, m := range imported {
		if !slices.Contains(modules(), "/chat/"+m[1]) {
			t.Errorf("%s is imported and not served", m[1])
		}
	}
}

func TestTheScriptMakesNoMarkup(t *testing.T) {
	sinks := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|setHTMLUnsafe|document\.write|srcdoc|createContextualFragment|DOMParser|\beval\b|new Function|cssText|\bimport\s*\(`)
	if found := sinks.FindAllString(script(t), -1); found != nil {
		t.Errorf("the chat uses %q; text from a room must only become text", found)
	}
}

// TestTheScriptFindsItsElements: a renamed id would show in a browser only.
func TestTheScriptFindsItsElements(t *testing.T) {
	ids := make(map[string]bool)
	for _, e := range elements(t, "/") {
		id := attribute(e, "id")
		if id != "" && ids[id] {
			t.Errorf("the id %q stands twice in the page", id)
		}
		ids[id] = true
	}
	for _, m := range regexp.MustCompile(`byId\('([^']+)'\)`).FindAllStringSubmatch(script(t), -1) {
		if !ids[m[1]] {
			t.Errorf("the chat looks for #%s, which is not in the page", m[1])
		}
	}
}

func TestFieldsAndButtonsHaveNames(t *testing.T) {
	labelled := make(map[string]bool)
	for _, e := range elements(t, "/") {
		if e.Data == "label" {
			labelled[attribute(e, "for")] = true
		}
	}
	for _, e := range elements(t, "/") {
		field := e.Data == "input" || e.Data == "textarea"
		if field && attribute(e, "aria-label") == "" && !labelled[attribute(e, "id")] {
			t.Errorf("%s has no label", e)
		}
		if class := attribute(e, "class"); e.Data == "button" && strings.Contains(class, "icon") && attribute(e, "aria-label") == "" {
			t.Errorf("%s shows an icon only and has no name", e)
		}
	}
}
