package e2e

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/cmd/sluice/internal/capture"
)

// patience is how long a test waits for what should come at once; it is long
// because the machine may be busy with other tests.
const patience = 40 * time.Second

// output is what a program has written.
type output struct{ capture.Output }

// tail is the end of the text, for failures.
func (o *output) tail() string {
	const most = 4 << 10
	text := o.String()
	return text[max(0, len(text)-most):]
}

// process is a program that a test started. It ends with the test.
type process struct {
	name     string
	cmd      *exec.Cmd
	out, err *output
	done     chan struct{} // closed when it has ended and was waited for
}

// launch starts a program.
func launch(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: strings.Join(cmd.Args, " "), cmd: cmd, out: new(output), err: new(output), done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = p.out, p.err, attributes()
	cmd.WaitDelay = 5 * time.Second // for what a grandchild still writes
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", p.name, err)
	}
	go func() {
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill(t)
		if t.Failed() {
			t.Logf("%s wrote at last:\n%s%s", p.name, p.out.tail(), p.err.tail())
		}
		if text := p.err.String(); strings.Contains(text, "WARNING: DATA RACE") {
			t.Errorf("%s found a data race:\n%s", p.name, text)
		}
	})
	return p
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if !p.running() {
		return
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, sig); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		t.Errorf("%v to %s: %v", sig, p.name, err)
	}
}

// kill ends the process as a crash would, and waits for its end.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.done
}

// wait waits for the end and checks the exit code.
func (p *process) wait(t *testing.T, code int) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%s still runs after %v", p.name, patience)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("%s ended with %d, want %d", p.name, got, code)
	}
}

// await waits until one of its outputs holds a piece of text.
func (p *process) await(t *testing.T, o *output, piece string) {
	t.Helper()
	p.awaitThat(t, o, piece, func(text string) bool { return strings.Contains(text, piece) })
}

// awaitThat waits until a text is as it should be.
func (p *process) awaitThat(t *testing.T, o *output, what string, ok func(text string) bool) {
	t.Helper()
	if o.Await(patience, p.done, ok) {
		return
	}
	if !p.running() {
		t.Fatalf("%s ended and never wrote %s", p.name, what)
	}
	t.Fatalf("%s has not written %s after %v", p.name, what, patience)
}
