package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestANodeSleepsAsLongAsItMay: all threads of a node have a long timer slack,
// and what it was started with has come through: flags, environment, files.
func TestANodeSleepsAsLongAsItMay(t *testing.T) {
	t.Parallel() // it mostly waits
	cmd := exec.Command(program, "serve", "--listen=127.0.0.1:0", "--admin=")
	cmd.Env = append(os.Environ(), "SLUICE_NODE_NAME=sleeper")
	p := launch(t, cmd)
	p.await(t, p.err, `"msg":"serving"`)
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(environ, []byte("_SLUICE_OVERSLEEPING=1")); n != 1 || !bytes.Contains(environ, []byte("SLUICE_NODE_NAME=sleeper")) {
		t.Errorf("the node has executed itself %d times, with %q", n, environ)
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		slack, err := os.ReadFile("/proc/" + thread.Name() + "/timerslack_ns")
		switch {
		case os.IsPermission(err): // only a superuser may see it; what made it is checked above
		case err != nil:
			t.Error(err)
		case strings.TrimSpace(string(slack)) != "1000000":
			t.Errorf("thread %s has a slack of %s ns", thread.Name(), slack)
		}
	}
	p.signal(t, syscall.SIGINT)
	p.wait(t, 0)
}
