package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sluice/fanout/redistest"
)

// knockers open one new connection after the other, each for a POST or a
// stream, and count those that were served. Nothing may go wrong.
type knockers struct {
	t      *testing.T
	served *tally
	failed chan error // has the first failure
	stop   context.CancelFunc
	tasks  sync.WaitGroup
}

func knock(t *testing.T, url string, n int) *knockers {
	ctx, cancel := context.WithCancel(t.Context())
	k := &knockers{t: t, served: newTally(), failed: make(chan error, 1), stop: cancel}
	t.Cleanup(func() { k.stop(); k.tasks.Wait() })
	for i := range n {
		k.tasks.Go(func() {
			for ctx.Err() == nil {
				if err := k.knock(ctx, url, i%2 == 0); err != nil && ctx.Err() == nil {
					select {
					case k.failed <- err:
					default:
					}
					return
				}
			}
		})
	}
	return k
}

// knock opens one connection.
func (k *knockers) knock(ctx context.Context, url string, publish bool) error {
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if publish {
		method, body = http.MethodPost, strings.NewReader("knock")
	}
	req, err := http.NewRequestWithContext(ctx, method, url+"/rooms/door/events", body)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if publish {
		if resp.StatusCode != http.StatusCreated {
			return fmt.Errorf("a POST was answered by %s", resp.Status)
		}
		k.served.add("posts", 1)
		return nil
	}
	b, err := eventStream{bufio.NewReader(resp.Body)}.next()
	if err != nil || resp.StatusCode != http.StatusOK || b.event != "sluice.open" && b.event != "sluice.bye" {
		return fmt.Errorf("a stream was answered by %s, and began with %+v: %w", resp.Status, b, err)
	}
	k.served.add(b.event, 1)
	return nil
}

// await waits until so many more POSTs and streams were served.
func (k *knockers) await(n int) {
	k.t.Helper()
	for _, what := range []string{"posts", "sluice.open"} {
		if err := k.served.await(k.t.Context(), nil, what, k.served.of(what)+n); err != nil {
			k.t.Error(err)
		}
	}
	k.check()
}

func (k *knockers) check() {
	k.t.Helper()
	select {
	case err := <-k.failed:
		k.t.Fatalf("%v; after %d POSTs and %d streams", err, k.served.of("posts"), k.served.of("sluice.open"))
	default:
	}
}

// end stops knocking and says what was served.
func (k *knockers) end() {
	k.t.Helper()
	k.stop()
	k.tasks.Wait()
	k.check()
	k.t.Logf("%d POSTs and %d streams on new connections were served, %d streams were sent away; none failed",
		k.served.of("posts"), k.served.of("sluice.open"), k.served.of("sluice.bye"))
}

// takeOvers is how often a process is replaced.
const takeOvers = 3

// TestAnotherProcessTakesThePortOver: with --reuse-port the next one listens
// before the one before is told to end.
func TestAnotherProcessTakesThePortOver(t *testing.T) {
	t.Parallel() // it mostly waits
	redis := redistest.Start(t)
	n := startNode(t, redis.URL(), "--reuse-port", "--drain=2s", "--max-streams-per-ip=0", "--padding=0")
	k := knock(t, n.url, 8)
	k.await(50)
	for range takeOvers {
		before := n.proc
		n.start() // and returns when its successor is ready
		before.signal(t, syscall.SIGTERM)
		k.await(50)
		before.wait(t, 0)
		k.check()
	}
	k.await(50)
	k.end()
	if byes := k.served.of("sluice.bye"); byes > 0 {
		t.Errorf("%d streams came to a process that was ending; want all at its successor", byes)
	}
}

// TestAnInheritedListenerOutlivesItsProcesses: who passes the listener keeps it
// open, so that between two processes connections wait.
func TestAnInheritedListenerOutlivesItsProcesses(t *testing.T) {
	t.Parallel() // it mostly waits
	redis := redistest.Start(t)
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // as systemd's are
	ln, err := plain.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	url := "http://" + ln.Addr().String()
	start := func() *process {
		p := launch(t, activated(file, "serve", "--admin=", "--redis", redis.URL(), "--drain=1s", "--publish-rate=0", "--max-streams-per-ip=0", "--padding=0", "--retry=100ms"))
		p.await(t, p.err, `"msg":"serving","url":"`+url)
		return p
	}
	p := start()
	k := knock(t, url, 8)
	k.await(50)
	for range takeOvers {
		p.signal(t, syscall.SIGTERM)
		p.wait(t, 0)
		p = start()
		k.await(50)
	}
	k.end()
	p.signal(t, syscall.SIGTERM)
	p.wait(t, 0)
}

// activated is a sluice that is given a listener, as systemd does it.
func activated(listener *os.File, args ...string) *exec.Cmd {
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=public exec "$0" "$@"`, program}, args...)...)
	cmd.ExtraFiles = []*os.File{listener}
	return cmd
}

// TestTheListenerOfSystemdIsTaken, as systemd itself passes it.
func TestTheListenerOfSystemdIsTaken(t *testing.T) {
	t.Parallel() // it mostly waits
	path, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("systemd-socket-activate is missing; on Debian: apt-get install systemd")
		}
		t.Skip("systemd-socket-activate is missing; on Debian: apt-get install systemd")
	}
	addr := freeAddr(t)
	p := launch(t, exec.Command(path, "--listen="+addr, "--fdname=public", program, "serve", "--admin=", "--drain=1s"))
	p.await(t, p.err, "Listening on "+addr)
	client := newClient()
	defer client.CloseIdleConnections()
	post(t, client, "http://"+addr+"/rooms/lobby/events", "text/plain", "which starts it", http.StatusCreated)
	p.signal(t, syscall.SIGTERM)
	p.wait(t, 0)
}

// TestAListenerThatIsNoneIsRefused, rather than another one opened.
func TestAListenerThatIsNoneIsRefused(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	out, err := activated(null, "serve", "--admin=").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(string(out), "LISTEN_FDS") {
		t.Errorf("a node that was passed no socket: %v, %s", err, out)
	}
}
