package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/cmd/sluice/internal/capture"
)

// asProgram makes the test binary be sluice itself, for tests that need a real process.
const asProgram = "SLUICE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// output is what a program has written.
type output struct{ capture.Output }

// await waits until the text holds a piece.
func (o *output) await(t *testing.T, piece string) {
	t.Helper()
	const limit = 10 * time.Second
	if !o.Await(limit, nil, func(text string) bool { return strings.Contains(text, piece) }) {
		t.Fatalf("after %v still no %q in:\n%s", limit, piece, o)
	}
}

// program is one run of sluice in this process.
type program struct {
	out, err *output
	stop     context.CancelFunc // as a signal does
	ended    chan struct{}
	code     int // once ended is closed
}

// start runs sluice with these arguments; env is what its environment holds besides nothing.
func start(t *testing.T, stdin io.Reader, env map[string]string, args ...string) *program {
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{out: new(output), err: new(output), stop: cancel, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		p.code = run(ctx, args, stdin, p.out, p.err, func(name string) string { return env[name] })
	}()
	t.Cleanup(func() {
		cancel()
		<-p.ended
	})
	return p
}

// wait waits for the end and checks the exit code.
func (p *program) wait(t *testing.T, code int) {
	t.Helper()
	const limit = time.Minute // a doctor may need a third of it
	select {
	case <-p.ended:
	case <-time.After(limit):
		t.Fatalf("still running after %v; stdout:\n%s\nstderr:\n%s", limit, p.out, p.err)
	}
	if p.code != code {
		t.Fatalf("exit code %d, want %d; stdout:\n%s\nstderr:\n%s", p.code, code, p.out, p.err)
	}
}

// sluice runs a command to its end.
func sluice(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	p := start(t, strings.NewReader(""), nil, args...)
	p.wait(t, code)
	return p.out.String(), p.err.String()
}

func TestHelpAndVersionGoToStdout(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--help"}, "Publish events to a room"},
		{[]string{"help"}, "Publish events to a room"},
		{[]string{"tail", "--help"}, "$SLUICE_KEEP_GOING"},
		{[]string{"help", "tail"}, "$SLUICE_KEEP_GOING"},
		{[]string{"send", "-h"}, "--json-lines"},
		{[]string{"--version"}, "sluice "},
	} {
		stdout, stderr := sluice(t, 0, c.args...)
		if !strings.Contains(stdout, c.want) || stderr != "" {
			t.Errorf("sluice %q: stdout %q, stderr %q, want %q in stdout only", c.args, stdout, stderr, c.want)
		}
	}
}

func TestWrongUseIsOneLineAndExitCodeTwo(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "expected one of"},
		{[]string{"tial"}, "tail"},
		{[]string{"help", "tial"}, "tial"},
		{[]string{"tail"}, "room"},
		{[]string{"tail", ""}, "a room has a name"},
		{[]string{"tail", "a", "--after=earliest", "--last=3"}, "--last"},
		{[]string{"tail", "a", "--json", "--exec=cat"}, "--exec"},
		{[]string{"tail", "a", "--keep-going"}, "--exec"},
		{[]string{"tail", "a", "--url=localhost:8080"}, "http://127.0.0.1:8080"},
		{[]string{"tail", "a", "--token=a b"}, "--token"},
		{[]string{"tail", "a", "--config=/does/not/exist"}, "/does/not/exist"},
		{[]string{"send", "a", "{", "--json"}, "not JSON"},
		{[]string{"send", "a", "x", "--json-lines"}, "--json"},
		{[]string{"send", "a", "-", "--json"}, "--json-lines"},
		{[]string{"send", "a", "x", "--key=a b"}, "--key"},
		{[]string{"send", "a", "x", "--timeout=soon"}, "--timeout"},
		{[]string{"send", "a", "x", "--timeout=-1s"}, "--timeout"},
		{[]string{"send", "a", "\xff"}, "UTF-8"},
	} {
		stdout, stderr := sluice(t, 2, c.args...)
		if !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 || stdout != "" {
			t.Errorf("sluice %q: stdout %q, stderr %q, want one line with %q on stderr", c.args, stdout, stderr, c.want)
		}
	}
}

func TestSignalEndsTailWithZero(t *testing.T) {
	t.Parallel() // it mostly waits
	g := newTestGateway(t)
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		out := new(output)
		cmd := exec.Command(os.Args[0], "tail", "lobby", "--after=earliest", "--url", g.URL)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		g.publish("lobby", `"hello"`)
		out.await(t, "hello")
		cmd.Process.Signal(signal)
		if err := cmd.Wait(); err != nil {
			t.Errorf("after %v: %v; output:\n%s", signal, err, out)
		}
	}
}
