package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/fanout/redistest"
)

// curl runs curl to its end and returns what it printed.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	p := startCurl(t, args...)
	p.wait(t, 0)
	return p.out.String()
}

func startCurl(t *testing.T, args ...string) *process {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("curl is not installed, and nothing stands in for it here; install it: sudo apt-get update && sudo apt-get install -y curl")
	}
	return launch(t, exec.Command(path, append([]string{"-sS"}, args...)...))
}

func TestCurlIsACompleteClient(t *testing.T) {
	t.Parallel() // it mostly waits
	n := startNode(t, "")
	events := n.url + "/rooms/lobby/events"
	stream := startCurl(t, "-N", events)
	stream.await(t, stream.out, "event: sluice.open\n")
	var receipt receipt
	if err := json.Unmarshal([]byte(curl(t, "-d", "hello", events)), &receipt); err != nil || receipt.Room != "lobby" {
		t.Fatalf("%v: %+v", err, receipt)
	}
	stream.await(t, stream.out, "\ndata: hello\nid: "+receipt.ID+"\n\n")
	curl(t, "-d", `{"text":"hi"}`, events)
	stream.await(t, stream.out, "\ndata: {\"text\":\"hi\"}\nid: ")
}

// TestTailAndSendOutliveANode: both go on as if nothing had been.
func TestTailAndSendOutliveANode(t *testing.T) {
	t.Parallel() // it mostly waits
	redis := redistest.Start(t)
	a, b := startNode(t, redis.URL()), startNode(t, redis.URL())
	sluice := func(stdin string, args ...string) *process {
		cmd := exec.Command(program, args...)
		cmd.Stdin = strings.NewReader(stdin)
		return launch(t, cmd)
	}
	tail := sluice("", "tail", "lobby", "--json", "--after=earliest", "--url", a.url)
	sluice("", "send", "lobby", "one", "--url", b.url).wait(t, 0)
	tail.await(t, tail.out, `"one"`)
	a.kill()
	sluice("two\nthree\n", "send", "lobby", "-", "--url", b.url).wait(t, 0)
	waiting := sluice("", "send", "lobby", "four", "--url", a.url)
	waiting.await(t, waiting.err, "trying again")
	a.start()
	waiting.wait(t, 0)
	var lines strings.Builder
	want := []string{"one", "two", "three", "four"}
	for i := range 900 { // fewer than a room keeps, for a tail that comes back late
		want = append(want, fmt.Sprintf("line %d", i))
		fmt.Fprintln(&lines, want[len(want)-1])
	}
	sluice(lines.String(), "send", "lobby", "--url", b.url).wait(t, 0)
	tail.await(t, tail.out, `"`+want[len(want)-1]+`"`)
	tail.signal(t, syscall.SIGINT)
	tail.wait(t, 0)
	if got := dataOf(t, tail.out.String()); !slices.Equal(got, want) {
		t.Errorf("tail printed %d events, want %d: %.500q", len(got), len(want), got)
	}
}

// dataOf reads the texts of the envelopes, one a line, whose numbers must follow each other.
func dataOf(t *testing.T, lines string) []string {
	t.Helper()
	var texts []string
	for line := range strings.Lines(lines) {
		var e struct{ ID, Data string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in the line %q", err, line)
		}
		texts = append(texts, e.Data)
		if at, err := parsePlace(e.ID); err != nil || at.seq != int64(len(texts)) {
			t.Errorf("line %d is %s", len(texts), line)
		}
	}
	return texts
}

// example is a command that the README tells people to type.
type example struct {
	command string
	want    string // a regular expression for what it prints
	waits   bool   // for an event, without saying when it is there
	endless bool   // until it is stopped
}

// examples are all commands of the README that talk to a gateway on this
// machine, in their order. Lines that go on are joined.
var examples = []example{
	{command: "curl -N http://127.0.0.1:8080/rooms/lobby/events", want: `event: sluice.open\ndata: {.*}\nid: 0-0\n\n`, endless: true},
	{command: "curl -d hello http://127.0.0.1:8080/rooms/lobby/events", want: `^{"id":"[0-9a-z]+-1","room":"lobby","type":"message","at":".*Z"}\n$`},
	{command: "curl -N 'http://127.0.0.1:8080/rooms/lobby/events?after=earliest'", want: `\ndata: hello\nid: [0-9a-z]+-1\n\n`, endless: true},
	{command: "curl -N 'http://127.0.0.1:8080/events?room=lobby&room=news'", want: `\nid: lobby=[0-9a-z]+-1,news=0-0\n\n`, endless: true},
	{command: "curl -N -H 'Accept: application/x-ndjson' http://127.0.0.1:8080/rooms/lobby/events", want: `^{"id":"[0-9a-z]+-1","type":"sluice.open",`, endless: true},
	{command: "curl 'http://127.0.0.1:8080/rooms/lobby/events?limit=20'", want: `^{"events":\[{.*"data":"hello"}\],"next":"[0-9a-z]+-1"}\n$`},
	{command: "curl 'http://127.0.0.1:8080/rooms/lobby/events?wait=25s'", want: `^{"events":\[{.*"data":"anybody\?"}`, waits: true},
	{command: "curl -d 'hello' http://127.0.0.1:8080/rooms/lobby/events", want: `-\d+","room":"lobby"`},
	{command: `curl -H 'Content-Type: application/json' -d '{"app":"shop","version":"1.4.2"}' 'http://127.0.0.1:8080/rooms/lobby/events?type=deploy'`, want: `-\d+","room":"lobby","type":"deploy"`},
	{command: `printf '{"data":"one"}\n{"data":{"n":2},"type":"step"}\n' | curl -H 'Content-Type: application/x-ndjson' --data-binary @- http://127.0.0.1:8080/rooms/lobby/events`, want: `^{"events":\[{.*"type":"message",.*},{.*"type":"step",.*}\]}\n$`},
	{command: "curl -H 'Idempotency-Key: order-1042' -d 'paid' http://127.0.0.1:8080/rooms/orders/events", want: `-1","room":"orders"`},
	{command: "curl -d 'ann' 'http://127.0.0.1:8080/rooms/lobby/events?type=typing&ephemeral=true'", want: `^{"room":"lobby","type":"typing","at":`},
	{command: "sluice tail lobby", want: `anybody\?`, waits: true, endless: true},
	{command: "sluice tail lobby news --last 10 --json", want: `(?s)"data":"one"}.*"data":{"n":2}}`, endless: true},
	{command: "sluice tail lobby --exec 'jq -r .data' --state lobby.state", want: `anybody\?`, waits: true, endless: true},
	{command: "sluice send lobby 'hello from a shell'"},
	{command: `sluice send lobby --type deploy --json '{"app":"shop","version":"1.4.2"}'`},
	{command: `printf 'one\ntwo\n' | sluice send lobby`},
	{command: "sluice doctor --quick http://127.0.0.1:8080", want: `(?m)^ok +reach `},
	{command: "sluice bench --streams 100 --rooms 10 --duration 2s", want: `nothing lost, doubled`},
}

// TestTheReadmesCommandsWork types what the README says, in its order, at a
// gateway started as it says.
func TestTheReadmesCommandsWork(t *testing.T) {
	t.Parallel() // it mostly waits
	commands := readmeCommands(t)
	addr := freeAddr(t)
	serve := exec.Command("go", "run", "./cmd/sluice", "serve", "--listen", addr, "--admin=", "--publish-rate=0")
	serve.Dir = top
	gateway := launch(t, serve)
	gateway.await(t, gateway.err, `"msg":"serving"`)
	dir := t.TempDir()
	for i, e := range examples {
		if i >= len(commands) || commands[i] != e.command {
			t.Fatalf("command %d of README.md is not %q; what it says and what is tried here must be the same:\n%s", i, e.command, strings.Join(commands, "\n"))
		}
		cmd := exec.Command("sh", "-c", strings.ReplaceAll(e.command, "127.0.0.1:8080", addr))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "SLUICE_URL=http://"+addr, "PATH="+filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
		e.try(t, launch(t, cmd), "http://"+addr)
	}
	if len(commands) > len(examples) {
		t.Errorf("README.md says to type this, and no test does; add it to examples: %q", commands[len(examples):])
	}
	if page := curl(t, "http://"+addr+"/"); !strings.Contains(page, "<title>") {
		t.Errorf("the page is %.200q", page)
	}
}

// try sees to it that a command does what it is to do.
func (e *example) try(t *testing.T, p *process, gateway string) {
	t.Helper()
	want := regexp.MustCompile(e.want)
	switch {
	case e.waits && e.endless: // nothing that would push out what --last is to show
		speak(t, p, gateway+"/rooms/lobby/events?ephemeral=true", http.StatusAccepted, want)
	case e.waits: // a page holds what is kept
		speak(t, p, gateway+"/rooms/lobby/events", http.StatusCreated, want)
	}
	if e.endless {
		p.awaitThat(t, p.out, e.want, want.MatchString)
		p.kill(t)
		return
	}
	p.wait(t, 0)
	if out := p.out.String(); !want.MatchString(out) || strings.Contains(out, "urn:sluice:") {
		t.Errorf("%s printed %q, want %s", e.command, out, e.want)
	}
}

// speak publishes until a process has printed that it heard.
func speak(t *testing.T, p *process, url string, status int, heard *regexp.Regexp) {
	t.Helper()
	client := newClient()
	defer client.CloseIdleConnections()
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	for limit := time.Now().Add(patience); !heard.MatchString(p.out.String()) && time.Now().Before(limit); {
		post(t, client, url, "text/plain", "anybody?", status)
		<-every.C
	}
}

// comment is what a shell ignores at the end of a line.
var comment = regexp.MustCompile(`\s+#.*$`)

// readmeCommands gives the commands in the README that need but a gateway on
// this machine.
func readmeCommands(t *testing.T) []string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(top, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	begun := ""
	for line := range strings.Lines(string(readme)) {
		code, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		if !ok {
			begun = ""
			continue
		}
		command := begun + strings.TrimSpace(comment.ReplaceAllString(code, ""))
		if rest, ok := strings.CutSuffix(command, `\`); ok || strings.HasSuffix(command, "|") {
			begun = strings.TrimSpace(rest) + " "
			continue
		}
		begun = ""
		if local.MatchString(command) && !strings.Contains(command, "https:") {
			commands = append(commands, command)
		}
	}
	return commands
}

// local are the commands that are tried here; other tests start nodes.
var local = regexp.MustCompile(`^(curl|printf|sluice (tail|send|doctor|bench)) `)

func TestHealthTellsALiveNodeFromAReadyOne(t *testing.T) {
	t.Parallel() // it mostly waits
	redis := redistest.Start(t)
	n := startNode(t, redis.URL())
	client := newClient()
	t.Cleanup(client.CloseIdleConnections)
	redis.Kill()
	n.awaitReady(http.StatusServiceUnavailable)
	if status, err := statusOf(t.Context(), client, n.url+"/healthz"); status != http.StatusOK {
		t.Errorf("/healthz without Redis: %d, %v; want 200, since a restart would mend nothing", status, err)
	}
}
