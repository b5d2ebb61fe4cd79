package redistest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Server is a redis-server process, or rather a succession of them: address,
// directory and configuration stay when it is killed and restarted.
//
// All methods may be called from any goroutine, but those that begin or end the
// process (Kill, Stop, Restart, Pause, Resume) from one at a time.
type Server struct {
	Addr string // host:port, on loopback
	Dir  string // configuration, log and data; removed in the end

	t        T
	setup    setup
	password string
	port     *port
	client   *redis.Client

	mu     sync.Mutex // guards the fields below
	proc   *process
	paused bool
}

// Start runs a redis-server that persists nothing, on a free port, and returns
// when it answers. The arguments are redis-server's own, ("--appendonly", "yes"),
// and win over the rig's but for port, bind and dir. DEBUG is allowed. Client, Do
// and URL know the password, if there is one (--requirepass).
func Start(t T, args ...string) *Server {
	t.Helper()
	s, err := launch(t, setup{args: args})
	if err != nil {
		t.Fatalf("redistest: starting redis-server: %v", err)
	}
	cleanUp(t, s)
	return s
}

// launch returns a running server that the caller closes.
func launch(t T, how setup) (*Server, error) {
	dir, err := os.MkdirTemp("", "sluice-redis-")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, t: t, setup: how, password: valueOf(how.args, "requirepass")}
	const attempts = 5 // others choose ports too, between our look and Redis' bind
	for range attempts {
		if err = s.settle(); err != nil {
			break
		}
		if err = s.run(); err == nil {
			s.client = newClient(s.Addr, s.password)
			return s, nil
		}
		err = errors.Join(err, s.port.release())
		if !errors.Is(err, errTaken) {
			break
		}
	}
	return nil, errors.Join(err, os.RemoveAll(dir))
}

// settle chooses the port and writes the configuration.
func (s *Server) settle() error {
	lines, err := directives(s.setup.args)
	if err != nil {
		return err
	}
	if s.port, err = reserve(s.setup.cluster); err != nil {
		return err
	}
	s.Addr = loopback(s.port.number)
	lines = slices.Concat(s.setup.defaults(), lines, []string{
		"bind 127.0.0.1", "port " + strconv.Itoa(s.port.number), "dir " + quote(s.Dir),
	})
	text := strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(s.config(), []byte(text), 0o600); err != nil {
		return errors.Join(err, s.port.release())
	}
	return nil
}

func (s *Server) config() string { return filepath.Join(s.Dir, "redis.conf") }

// run starts a process and waits until it answers.
func (s *Server) run() error {
	argv := []string{s.config()}
	if s.setup.sentinel {
		argv = append(argv, "--sentinel")
	}
	p, err := spawn(s.Dir, s.Addr, s.password, argv)
	if err != nil {
		return err
	}
	if err := p.ready(s.Addr); err != nil {
		return errors.Join(err, p.end(syscall.SIGKILL))
	}
	s.mu.Lock()
	s.proc, s.paused = p, false
	s.mu.Unlock()
	return nil
}

// close ends the process, if there is one, and removes what it left.
func (s *Server) close() error {
	return errors.Join(s.client.Close(), s.end(syscall.SIGKILL), s.port.release(), os.RemoveAll(s.Dir))
}

// cleanUp closes servers together when t ends; some may be nil.
func cleanUp(t T, servers ...*Server) {
	t.Cleanup(func() {
		t.Helper()
		err := each(servers, func(_ int, s *Server) error {
			if s == nil {
				return nil
			}
			return s.close()
		})
		if err != nil {
			t.Fatalf("redistest: cleaning up: %v", err)
		}
	})
}

func (s *Server) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// ctl returns the rig's own connections, which no fault of a test disturbs.
func (s *Server) ctl() (*redis.Client, error) {
	p := s.current()
	if !p.alive() {
		return nil, fmt.Errorf("redis-server on %s does not run; Restart it first", s.Addr)
	}
	return p.ctl, nil
}

// Running reports whether the process exists and is not paused.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.alive() && !s.paused
}

// end signals the process and waits; a process that has ended is fine.
func (s *Server) end(sig syscall.Signal) error {
	p := s.current()
	if !p.alive() {
		return p.closeClient()
	}
	return p.end(sig)
}

// Kill ends the process by SIGKILL and waits for it. What it had not written to
// the kernel is lost. Killing a dead server does nothing.
func (s *Server) Kill() {
	s.t.Helper()
	s.check("killing", s.end(syscall.SIGKILL))
}

// Stop ends the process by SIGTERM, as an operator would, and waits for it: the
// server takes its leave of replicas and flushes its files. A paused server is
// resumed first.
func (s *Server) Stop() {
	s.t.Helper()
	s.Resume()
	s.check("stopping", s.end(syscall.SIGTERM))
}

// Restart starts the server again on the same port, in the same directory and
// with the same configuration, and returns when it has loaded its data. A server
// that still runs is stopped first. Should something else have the port, Restart
// waits for it to go.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.check("restarting", poll(startLimit, 50*time.Millisecond, func() error {
		err := s.run()
		if err != nil && !errors.Is(err, errTaken) {
			return hopeless{err}
		}
		return err
	}))
}

// Pause freezes the process (SIGSTOP) and returns when it stands still: its
// connections stay open and say nothing. Pausing a dead server fails.
func (s *Server) Pause() {
	s.t.Helper()
	s.mu.Lock()
	s.paused = true
	p := s.proc
	s.mu.Unlock()
	s.check("pausing", p.freeze())
}

// Resume lets a paused server go on (SIGCONT); on any other it does nothing.
func (s *Server) Resume() {
	s.t.Helper()
	s.mu.Lock()
	paused := s.paused
	s.paused = false
	p := s.proc
	s.mu.Unlock()
	if paused && p.alive() {
		s.check("resuming", p.thaw())
	}
}

// URL returns the address as --redis takes it.
func (s *Server) URL() string {
	u := url.URL{Scheme: "redis", Host: s.Addr}
	if s.password != "" {
		u.User = url.UserPassword("", s.password)
	}
	return u.String()
}

// Client returns the server's client, always the same one, closed in the end. It
// sends each command once (no retries) and obeys the context's deadline.
func (s *Server) Client() *redis.Client { return s.client }

// Do runs one command as redis-cli would and returns the reply; an error fails
// the test, and a nil reply is nil. For commands that may fail use Client.
func (s *Server) Do(args ...any) any {
	s.t.Helper()
	reply, err := s.do(args...)
	s.check(fmt.Sprintf("%v", args), err)
	return reply
}

func (s *Server) do(args ...any) (any, error) {
	ctl, err := s.ctl()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	reply, err := ctl.Do(ctx, args...).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return reply, err
}

// Info returns the fields of a section of INFO, such as "replication".
func (s *Server) Info(section string) map[string]string {
	s.t.Helper()
	info, err := s.info(section)
	s.check("INFO "+section, err)
	return info
}

func (s *Server) info(section string) (map[string]string, error) {
	ctl, err := s.ctl()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	info, err := ctl.Info(ctx, section).Result()
	return fields(info), err
}

func (s *Server) check(doing string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("redistest: %s: %s: %v", s.Addr, doing, err)
	}
}
