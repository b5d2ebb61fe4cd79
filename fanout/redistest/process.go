package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	startLimit = 20 * time.Second // an AOF to load, a machine that is busy
	stopLimit  = 20 * time.Second // Redis itself waits up to 10 s for its replicas
	askLimit   = 5 * time.Second
	askEvery   = 3 * time.Millisecond
)

// errMissing tells people what to do, since the tests do not go on without.
var errMissing = errors.New("redis-server is not installed, and nothing stands in for it here; install it: " +
	"sudo apt-get update && sudo apt-get install -y redis-server")

// errTaken says that something else listens on the port.
var errTaken = errors.New("the port is in use")

// process is one life of a server.
type process struct {
	cmd  *exec.Cmd
	ctl  *redis.Client // the rig's own connections, which die with the process
	done chan struct{} // closed when the process has ended and was waited for
	log  string        // file with what the process said
	said int64         // how much of the file is older than this process
}

// spawn starts redis-server in dir. The caller ends it with kill, even where
// ready fails.
func spawn(dir, addr, password string, argv []string) (*process, error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errMissing
	}
	p := &process{done: make(chan struct{}), log: dir + "/redis.log"}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	if st, err := out.Stat(); err == nil {
		p.said = st.Size()
	}
	p.cmd = exec.Command(bin, argv...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = dir, out, out, attributes()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.ctl = newClient(addr, password)
	go func() {
		// Ends with the process, and kill waits for it. How a process ended that
		// we meant to end says nothing; the others are found by their log.
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// newClient returns a client that never repeats a command, never outlives the
// caller's context and sends nothing but what it is told (and HELLO).
func newClient(addr, password string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, Password: password,
		MaxRetries: -1, DialerRetries: 1, DialTimeout: time.Second, ContextTimeoutEnabled: true,
		// Beyond PoolSize failed dials a client stops dialling for a second; on this
		// rig servers come back sooner.
		PoolSize: 100, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// ready waits until it is this process that answers a PING.
func (p *process) ready(addr string) error {
	return poll(startLimit, askEvery, func() error {
		if !p.alive() {
			return hopeless{p.failure()}
		}
		// Dialled by hand first, since failures count against the client.
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), askLimit)
		defer cancel()
		if err := p.ctl.Ping(ctx).Err(); err != nil {
			return err // loading its data, for instance
		}
		info, err := p.ctl.Info(ctx, "server").Result()
		if err != nil {
			return err
		}
		if pid := fields(info)["process_id"]; pid != strconv.Itoa(p.cmd.Process.Pid) {
			return fmt.Errorf("process %s answers instead of ours, %d: %w", pid, p.cmd.Process.Pid, errTaken)
		}
		return nil
	})
}

// failure explains why a process ended that should not have.
func (p *process) failure() error {
	said := p.tail()
	if strings.Contains(said, "Address already in use") {
		return errTaken
	}
	return fmt.Errorf("redis-server ended by itself (%v); it said:\n%s", p.cmd.ProcessState, said)
}

// tail returns the end of what this process said.
func (p *process) tail() string {
	const most = 4 << 10
	log, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	log = log[min(p.said, int64(len(log))):]
	return string(log[max(0, len(log)-most):])
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// end sends the signal and waits until the process is gone.
func (p *process) end(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-p.done:
		return p.closeClient()
	case <-limit.C:
		return fmt.Errorf("process %d still runs %v after the signal %q; it said:\n%s",
			p.cmd.Process.Pid, stopLimit, sig, p.tail())
	}
}

// closeClient may be called for a process that ended more than once.
func (p *process) closeClient() error {
	if err := p.ctl.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		return err
	}
	return nil
}

// freeze stops the process and returns when it stands still.
func (p *process) freeze() error {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return poll(askLimit, time.Millisecond, func() error {
		still, err := stopped(p.cmd.Process.Pid)
		if err == nil && !still {
			err = errors.New("the process still runs")
		}
		return err
	})
}

func (p *process) thaw() error { return p.cmd.Process.Signal(syscall.SIGCONT) }
