package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

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

// quickStart is what the README tells people to type, against a gateway at
// 127.0.0.1:8080, and what they are to see.
var quickStart = []struct {
	command string
	want    string // a regular expression for the output
}{
	{`curl -d hello http://127.0.0.1:8080/rooms/lobby/events`, `^{"id":"[0-9a-z]+-1","room":"lobby","type":"message","at":".*Z"}\n$`},
	{`curl -N http://127.0.0.1:8080/rooms/lobby/events`, `event: sluice.open\ndata: {.*}\nid: [0-9a-z]+-\d+\n\n`},
	{`curl -N 'http://127.0.0.1:8080/rooms/lobby/events?after=earliest'`, `\ndata: hello\nid: [0-9a-z]+-1\n\n`},
	{`curl -N -H 'Accept: application/x-ndjson' 'http://127.0.0.1:8080/rooms/lobby/events?last=1'`, `\n{"id":"[0-9a-z]+-1","room":"lobby",.*"data":"hello"}\n`},
	{`curl -N 'http://127.0.0.1:8080/events?room=lobby&room=news&after=earliest'`, `\ndata: {.*"room":"lobby".*"data":"hello"}\nid: lobby=[0-9a-z]+-1,news=`},
	{`curl 'http://127.0.0.1:8080/rooms/lobby/events?limit=10'`, `^{"events":\[{.*"data":"hello"}\],"next":"[0-9a-z]+-1"}\n$`},
	{`curl http://127.0.0.1:8080/rooms/lobby`, `^{.*"head":"[0-9a-z]+-1".*}\n$`},
	{`curl -H 'Idempotency-Key: order-17' -H 'Content-Type: application/json' -d '{"n":17}' http://127.0.0.1:8080/rooms/lobby/events`, `"id":"[0-9a-z]+-2"`},
	{`curl -H 'Idempotency-Key: order-17' -H 'Content-Type: application/json' -d '{"n":17}' http://127.0.0.1:8080/rooms/lobby/events`, `"id":"[0-9a-z]+-2"`},
	{`curl -d hello 'http://127.0.0.1:8080/events?room=lobby&room=news'`, `^{"events":\[{.*"room":"lobby".*},{.*"room":"news".*}\]}\n$`},
	{`curl 'http://127.0.0.1:8080/rooms/lobby/events?wait=5s&after=earliest'`, `^{"events":\[.*"data":{"n":17}`},
	{`curl -X DELETE http://127.0.0.1:8080/rooms/news/events`, ``},
	{`go run ./cmd/sluice send lobby hello`, ``},
	{`go run ./cmd/sluice tail lobby --after earliest`, `hello`},
}

// TestQuickStart runs the commands in their order, from the top of the project,
// against a gateway started as the README says.
func TestQuickStart(t *testing.T) {
	t.Parallel() // it mostly waits
	addr := freeAddr(t)
	serve := exec.Command("go", "run", "./cmd/sluice", "serve", "--listen", addr, "--admin=")
	serve.Dir = top
	gateway := launch(t, serve)
	gateway.await(t, gateway.err, `"msg":"serving"`)
	for _, c := range quickStart {
		cmd := exec.Command("sh", "-c", strings.ReplaceAll(c.command, "127.0.0.1:8080", addr))
		cmd.Dir, cmd.Env = top, append(os.Environ(), "SLUICE_URL=http://"+addr)
		p := launch(t, cmd)
		if want := regexp.MustCompile(c.want); c.want != "" {
			p.awaitThat(t, p.out, c.want, want.MatchString)
		}
		if strings.Contains(c.command, " -N") || strings.Contains(c.command, " tail ") {
			p.kill(t) // it would go on for ever
			continue
		}
		p.wait(t, 0)
		if out := p.out.String(); strings.Contains(out, "urn:sluice:") {
			t.Errorf("%s: %s", c.command, out)
		}
	}
	if page := curl(t, "http://"+addr+"/"); !strings.Contains(page, "<title>") {
		t.Errorf("the page is %.200q", page)
	}
	gateway.signal(t, syscall.SIGTERM)
	<-gateway.done
}

// TestTheReadmesCommandsAreTried: what people copy must have been run.
func TestTheReadmesCommandsAreTried(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(top, "README.md"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Log("there is no README.md yet")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for block := range bytes.SplitSeq(readme, []byte("\n```sh\n")) {
		code, _, _ := bytes.Cut(block, []byte("\n```"))
		for line := range strings.Lines(string(code) + "\n") {
			command := strings.TrimSpace(line)
			if !strings.HasPrefix(command, "curl ") || !strings.Contains(command, "127.0.0.1:8080") {
				continue
			}
			tried := slices.ContainsFunc(quickStart, func(c struct{ command, want string }) bool { return c.command == command })
			if !tried {
				t.Errorf("README.md says to type this, and no test does; add it to quickStart: %s", command)
			}
		}
	}
}

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
