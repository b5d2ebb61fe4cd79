package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"sluice/fanout/redistest"
	"sluice/static/browsertest"
)

// These tests run what stands in docs/examples, as it stands there.

// exampleFile gives the path of an example's file, from wherever it is run.
func exampleFile(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(top, "docs/examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// script makes a command of an example's script, with the program in its PATH.
func script(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(exampleFile(t, name), args...)
	cmd.Dir = t.TempDir()
	cmd.Env = slices.Concat(os.Environ(), []string{"PATH=" + filepath.Dir(program) + string(os.PathListSeparator) + os.Getenv("PATH")}, env)
	return cmd
}

// kept are the events that a room keeps.
func kept(t *testing.T, gateway, room string) (events []struct {
	ID, Type string
	Data     json.RawMessage
}) {
	t.Helper()
	var page struct {
		Events []struct {
			ID, Type string
			Data     json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(curl(t, gateway+"/rooms/"+room+"/events?limit=1000")), &page); err != nil {
		t.Fatal(err)
	}
	return page.Events
}

func TestEveryExampleIsListed(t *testing.T) {
	index := read(t, "docs/examples/README.md")
	folders, err := os.ReadDir(filepath.Join(top, "docs/examples"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if f.IsDir() && !strings.Contains(index, "("+f.Name()+"/)") {
			t.Errorf("docs/examples/README.md does not list %s", f.Name())
		}
	}
	pages, err := filepath.Glob(filepath.Join(top, "docs/examples/*/README.md"))
	if err != nil || len(pages) == 0 {
		t.Fatal("the examples have no pages", err)
	}
	for _, page := range append(pages, filepath.Join(top, "docs/examples/README.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`).FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), link[1])); err != nil {
				t.Errorf("%s leads to %s: %v", page, link[1], err)
			}
		}
	}
}

func TestExampleCountsVisitsLive(t *testing.T) {
	t.Parallel() // it mostly waits
	page := read(t, "docs/examples/visits/README.md")
	var gateway string
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file := filepath.Join(top, "docs/examples/visits", filepath.Base(r.URL.Path))
		if r.URL.Path == "/" {
			file = filepath.Join(top, "docs/examples/visits/index.html")
		}
		text, err := os.ReadFile(file)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		policy := regexp.MustCompile(`default-src 'none';.*`).FindString(page)
		w.Header().Set("Content-Security-Policy", strings.ReplaceAll(policy, "http://127.0.0.1:8080", gateway))
		w.Header().Set("Content-Type", map[string]string{".html": "text/html", ".js": "text/javascript", ".css": "text/css"}[filepath.Ext(file)])
		io.WriteString(w, strings.ReplaceAll(string(text), "http://127.0.0.1:8080", gateway))
	}))
	t.Cleanup(site.Close)
	gateway = startNode(t, "", "--cors-origin", site.URL).url

	browser := chromium.Profile(t)
	first := browser.Open(t, "first", site.URL+"/", site.URL+"/favicon.ico")
	total := func(b *browsertest.Tab, n int) {
		t.Helper()
		b.Await(fmt.Sprintf(`document.querySelector('#total').textContent === '%d'`, n))
	}
	total(first, 1)
	typed := regexp.MustCompile(`(?m)^    (curl .*)$`).FindStringSubmatch(page)[1]
	for range 2 {
		p := launch(t, exec.Command("sh", "-c", strings.ReplaceAll(typed, "http://127.0.0.1:8080", gateway)))
		p.wait(t, 0)
	}
	total(first, 3)
	curl(t, "-H", "Content-Type: application/json", "-d", `{"page":"<img src=x>"}`, gateway+"/rooms/visits/events?type=visit")
	second := browser.Open(t, "second", site.URL+"/", site.URL+"/favicon.ico")
	total(second, 5)
	total(first, 5)
	first.Reload()
	total(first, 5) // a reload is no visit
	const rows = `[...document.querySelectorAll('#pages tr')].map((row) => row.innerText.replace('\t', ' ')).sort().join()`
	if got := browsertest.Evaluate[string](first, rows); got != `/ 2,/prices 2,<img src=x> 1` {
		t.Errorf("the page shows %s", got)
	}
	for _, b := range []*browsertest.Tab{first, second} {
		b.Verify()
	}
}

// flaky passes requests on, but for the answer to the first and the whole of
// the second.
func flaky(t *testing.T, gateway string) (front *httptest.Server, seen *atomic.Int64) {
	t.Helper()
	to, err := url.Parse(gateway)
	if err != nil {
		t.Fatal(err)
	}
	seen = new(atomic.Int64)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(r *http.Response) error {
			if seen.Load() == 1 {
				panic(http.ErrAbortHandler)
			}
			return nil
		},
	}
	front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seen.Add(1) == 2 {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "no node", http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front, seen
}

// workflow is what of a workflow for GitHub Actions is looked at.
type workflow struct {
	Jobs map[string]struct {
		Env   map[string]string
		Steps []struct {
			Name, Uses, Run string
			Env             map[string]string
		}
	}
}

func TestExampleAnnouncesADeployOnce(t *testing.T) {
	t.Parallel() // it mostly waits
	const secret = "a secret that is long enough for HS256"
	n := startNode(t, "", "--jwt-secret", secret, "--public-subscribe=deploys")
	minted, err := exec.Command(program, "token", "--secret", secret, "--sub=ci", "--publish=deploys", "--for=2160h").Output()
	if err != nil {
		t.Fatal(err)
	}
	front, seen := flaky(t, n.url)
	known := map[string]string{
		"secrets.SLUICE_TOKEN": strings.TrimSpace(string(minted)), "github.run_id": "4711", "github.run_attempt": "1", "job.status": "success",
	}
	var w workflow
	if err := yaml.Unmarshal([]byte(read(t, "docs/examples/ci/deploy.yml")), &w); err != nil {
		t.Fatal(err)
	}
	job := w.Jobs["deploy"]
	if job.Env["SLUICE_URL"] == "" {
		t.Fatal("the job does not say where the gateway is")
	}
	job.Env["SLUICE_URL"] = front.URL
	for _, step := range job.Steps {
		if step.Run == "" {
			continue
		}
		cmd := exec.Command("bash", "-e", "-c", step.Run)
		cmd.Dir = top
		cmd.Env = append(os.Environ(), "GITHUB_ACTOR=ann", "GITHUB_SHA=6631bf1")
		for _, env := range []map[string]string{job.Env, step.Env} {
			for name, value := range env {
				cmd.Env = append(cmd.Env, name+"="+filledIn(t, value, known))
			}
		}
		launch(t, cmd).wait(t, 0)
	}
	var got []string
	for _, e := range kept(t, n.url, "deploys") {
		got = append(got, e.Type+" "+string(e.Data))
	}
	want := []string{`deploy.start {"by":"ann","commit":"6631bf1"}`, `deploy.end {"status":"success","commit":"6631bf1"}`}
	if !slices.Equal(got, want) {
		t.Errorf("the room has %q, want %q", got, want)
	}
	if seen.Load() != 4 {
		t.Errorf("%d requests were made, want 4: two that were lost, and two that were not", seen.Load())
	}
}

// filledIn puts values in the place of a workflow's expressions.
func filledIn(t *testing.T, text string, known map[string]string) string {
	t.Helper()
	return regexp.MustCompile(`\$\{\{ *(\S+) *\}\}`).ReplaceAllStringFunc(text, func(expression string) string {
		name := strings.TrimSpace(strings.Trim(expression, "${}"))
		if _, ok := known[name]; !ok {
			t.Errorf("the workflow uses %s, which this test does not know", name)
		}
		return known[name]
	})
}

// office is a worker, its gateway, and the letters that it is to write.
type office struct {
	*node
	dir    string
	worker *process
	want   []string
}

func (o *office) outbox() string { return filepath.Join(o.dir, "outbox") }

// work starts the worker.
func (o *office) work() {
	o.t.Helper()
	env := []string{"SLUICE_URL=" + o.url, "STATE=" + filepath.Join(o.dir, "cursor"), "OUTBOX=" + o.outbox()}
	o.worker = launch(o.t, script(o.t, env, "worker/worker.sh", "jobs"))
}

// ask gives the worker something to do.
func (o *office) ask(to string) {
	o.t.Helper()
	letter := fmt.Sprintf(`{"to":%q,"text":"hello %s"}`, to, to)
	launch(o.t, exec.Command(program, "send", "jobs", "--url", o.url, "--type=job", "--json", letter)).wait(o.t, 0)
	o.want = append(o.want, fmt.Sprintf("To: %s\n\nhello %s\n", to, to))
}

// done waits until the worker has got to the last job, and looks at its letters.
func (o *office) done() {
	o.t.Helper()
	jobs := kept(o.t, o.url, "jobs")
	last := jobs[len(jobs)-1].ID
	eventually(o.t, "the cursor is at "+last, func() bool {
		cursor, _ := os.ReadFile(filepath.Join(o.dir, "cursor")) // there is none at first
		return strings.Contains(string(cursor), last)
	})
	var letters []string
	for _, job := range jobs {
		if text, err := os.ReadFile(filepath.Join(o.outbox(), job.ID)); err == nil {
			letters = append(letters, string(text))
		}
	}
	if files, err := os.ReadDir(o.outbox()); err != nil || len(files) != len(o.want) || !slices.Equal(letters, o.want) {
		o.t.Errorf("the letters are %q, in %d files (%v), want %q", letters, len(files), err, o.want)
	}
}

// eventually waits until something holds of which nobody tells.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	for limit := time.Now().Add(patience); !holds(); <-every.C {
		if time.Now().After(limit) {
			t.Fatalf("after %v it still does not hold that %s", patience, what)
		}
	}
}

func TestExampleWorkerDoesEveryJob(t *testing.T) {
	t.Parallel() // it mostly waits
	redis := redistest.Start(t)
	o := &office{node: startNode(t, redis.URL()), dir: t.TempDir()}
	// A folder that is none makes the handler fail.
	if err := os.WriteFile(o.outbox(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o.ask("ann")
	o.work()
	o.worker.await(t, o.worker.err, "trying again")
	if err := os.Remove(o.outbox()); err != nil {
		t.Fatal(err)
	}
	o.ask("bob")
	o.done()
	o.worker.kill(t)

	o.ask("cid")
	o.kill() // the worker begins without a gateway
	o.work()
	o.worker.await(t, o.worker.err, "trying again")
	o.start()
	curl(t, "-H", "Content-Type: application/json", "-d", `["not a letter"]`, o.url+"/rooms/jobs/events?type=job")
	o.ask("dan")
	o.done()
	o.worker.await(t, o.worker.err, "is not a letter")
}

func TestExampleSubscribersResume(t *testing.T) {
	t.Parallel() // it mostly waits
	redis := redistest.Start(t)
	n := startNode(t, redis.URL(), "--retry=300ms")
	events := n.url + "/rooms/lobby/events"
	client := newClient()
	t.Cleanup(client.CloseIdleConnections)
	var want strings.Builder
	say := func(number int) {
		t.Helper()
		post(t, client, events, "text/plain", fmt.Sprintf("%d", number), http.StatusCreated)
		fmt.Fprintln(&want, number)
	}
	python := launch(t, script(t, []string{"PYTHONUNBUFFERED="}, "subscribers/subscribe.py", events, "earliest"))
	shell := launch(t, script(t, nil, "subscribers/subscribe.sh", events, "earliest"))
	// numbers are the data of the lines that Python prints.
	numbers := func() string {
		return regexp.MustCompile(`(?m)^\S+\tmessage\t"(.*)"$`).ReplaceAllString(python.out.String(), "$1")
	}
	heard := func() {
		t.Helper()
		shell.awaitThat(t, shell.out, want.String(), func(text string) bool { return len(text) >= want.Len() })
		python.awaitThat(t, python.out, want.String(), func(string) bool { return len(numbers()) >= want.Len() })
	}
	number := 0
	for range 3 {
		for range 20 {
			number++
			say(number)
		}
		heard()
		n.kill()
		n.start()
	}
	say(number + 1)
	heard()
	if got := shell.out.String(); got != want.String() {
		t.Errorf("the shell saw %q, want %q", got, want.String())
	}
	if got := numbers(); got != want.String() {
		t.Errorf("Python saw %q, want %q", got, want.String())
	}
	if both := shell.err.String() + python.err.String(); strings.Contains(both, "events are missing") {
		t.Errorf("somebody missed something:\n%s", both)
	}
}

// A pause that grew with each stream that ever broke off would be half a minute
// for ever, after a day behind what cuts streams.
func TestExampleInPythonComesBackAsSoonAfterTheLastCutAsAfterTheFirst(t *testing.T) {
	t.Parallel() // it mostly waits
	const cuts = 12
	var streams atomic.Int64
	way := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := streams.Add(1)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		fmt.Fprint(conn, "fff\r\n") // more than comes
		fmt.Fprintf(conn, "retry: 100\nevent: sluice.open\ndata: {}\nid: e-%d\n\ndata: %d\nid: e-%d\n\n", n-1, n, n)
	}))
	defer way.Close()
	python := launch(t, script(t, []string{"PYTHONUNBUFFERED="}, "subscribers/subscribe.py", way.URL))
	python.await(t, python.out, fmt.Sprintf("e-%d\tmessage\t\"%[1]d\"\n", cuts))
}

// typescript gives the compiler, and the folder with the types of React.
func typescript(t *testing.T) (compiler, modules string) {
	t.Helper()
	compiler, err := exec.LookPath("tsc")
	if err == nil {
		compiler, err = filepath.EvalSymlinks(compiler)
		modules = filepath.Join(filepath.Dir(compiler), "../..")
	}
	if err == nil {
		_, err = os.Stat(filepath.Join(modules, "@types/react"))
	}
	if err == nil {
		return compiler, modules
	}
	const install = "./test.sh does, or: npm install --prefix ~/.cache/sluice/npm typescript @types/react, with ~/.cache/sluice/npm/node_modules/.bin in PATH"
	if os.Getenv("CI") != "" {
		t.Fatalf("TypeScript, or React's types, are missing (%v); install them: %s", err, install)
	}
	t.Skipf("TypeScript, or React's types, are missing (%v); install them: %s", err, install)
	return "", ""
}

func TestExampleInReactFitsTheClientsTypes(t *testing.T) {
	t.Parallel() // a compiler waits for its files
	compiler, modules := typescript(t)
	n := startNode(t, "")
	dir := t.TempDir()
	for _, name := range []string{"sluice.js", "sluice.d.ts"} { // as the example says
		p := launch(t, exec.Command("curl", "-sSf", "-o", filepath.Join(dir, name), n.url+"/"+name))
		p.wait(t, 0)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	source := read(t, "docs/examples/react/Room.tsx")
	check := func(source string) (out string, err error) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "Room.tsx"), []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(compiler, "--noEmit", "--strict", "--noUncheckedIndexedAccess", "--noUnusedLocals", "--jsx", "react-jsx",
			"--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2022,dom,dom.iterable", "Room.tsx")
		cmd.Dir = dir
		text, err := cmd.CombinedOutput()
		return string(text), err
	}
	if out, err := check(source); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// The check would see it if the client changed.
	if out, err := check(strings.ReplaceAll(source, "onEvent", "onEvents")); err == nil || !strings.Contains(out, "onEvents") {
		t.Errorf("an option that the client does not know passes: %v\n%s", err, out)
	}
}
