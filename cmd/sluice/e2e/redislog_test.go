package e2e

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// TestWordsOfRedisAreInTheLog: a node without its Redis says so, and why, and
// all that it writes are lines of its log.
func TestWordsOfRedisAreInTheLog(t *testing.T) {
	t.Parallel() // it mostly waits
	for level, detail := range map[string]bool{"info": false, "debug": true} {
		n := &node{t: t, addr: freeAddr(t)}
		n.url = "http://" + n.addr
		n.proc = launch(t, exec.Command(program, "serve", "--listen", n.addr, "--admin=", "--drain=0s",
			"--redis=redis+sentinel://"+freeAddr(t)+"/mymaster", "--log-level", level))
		n.proc.await(t, n.proc.err, "Redis is out of reach")
		n.awaitReady(http.StatusServiceUnavailable)
		if detail {
			n.proc.await(t, n.proc.err, "go-redis: ")
		}
		n.stop()
		for line := range strings.Lines(n.proc.err.String()) {
			var entry struct{ Level, Msg, Error string }
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Errorf("%s: %v: %q", level, err, line)
			}
			if entry.Msg == "Redis is out of reach" && !strings.Contains(entry.Error, "sentinel") {
				t.Errorf("%s: nobody is told why: %s", level, line)
			}
			if strings.Contains(entry.Msg, "go-redis") && (!detail || entry.Level != "DEBUG") {
				t.Errorf("%s: this is no detail: %s", level, line)
			}
		}
	}
}
