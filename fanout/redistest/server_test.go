package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// orphanMaker asks the test binary to start a server, say so, and hang.
const orphanMaker = "REDISTEST_START_AND_HANG"

func TestMain(m *testing.M) {
	if os.Getenv(orphanMaker) != "" {
		err := Run(nil, func(t T) {
			s := Start(t)
			fmt.Println(s.Addr, s.Dir)
			select {}
		})
		fmt.Println(err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// within returns a context that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually fails the test if try does not succeed soon.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	if err := poll(10*time.Second, askEvery, try); err != nil {
		t.Fatal(err)
	}
}

func wantEqual[V comparable](t *testing.T, what string, got, want V) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func TestKilledServerComesBackEmptyOnItsPort(t *testing.T) {
	s := Start(t)
	s.Do("SET", "k", "v")
	addr, history := s.Addr, s.Info("replication")["master_replid"]

	s.Kill()
	s.Kill() // nothing to do
	wantEqual(t, "running after Kill", s.Running(), false)
	if err := s.Client().Ping(within(t, time.Second)).Err(); err == nil {
		t.Fatal("a killed server answered")
	}

	s.Restart()
	wantEqual(t, "address", s.Addr, addr)
	wantEqual(t, "keys", s.Do("DBSIZE"), any(int64(0)))
	if got := s.Info("replication")["master_replid"]; got == history {
		t.Fatalf("master_replid is %s after a restart too", got)
	}
	// The client made before goes on to work.
	if err := s.Client().Set(within(t, time.Second), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestAOFSurvivesKillAndStopButTheHistoryIsNew(t *testing.T) {
	s := Start(t, "--appendonly", "yes", "--appendfsync", "always")
	seen := map[string]bool{s.Info("replication")["master_replid"]: true}
	for i, end := range []func(){s.Kill, s.Stop, s.Kill} {
		s.Do("RPUSH", "log", i)
		end()
		s.Restart()
		wantEqual(t, "entries", s.Do("LLEN", "log"), any(int64(i+1)))
		id := s.Info("replication")["master_replid"]
		if seen[id] {
			t.Fatalf("restart %d: master_replid %s was there before", i+1, id)
		}
		seen[id] = true
	}
}

func TestPausedServerKeepsConnectionsAndSaysNothing(t *testing.T) {
	s := Start(t)
	if err := s.Client().Ping(within(t, time.Second)).Err(); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	wantEqual(t, "running while paused", s.Running(), false)
	err := s.Client().Incr(within(t, 100*time.Millisecond), "n").Err()
	if !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
		t.Fatalf("INCR on a paused server: got %v, want a timeout", err)
	}
	s.Resume()
	s.Resume() // nothing to do
	// The request lay in the server's socket, and is executed now.
	eventually(t, func() error {
		if n := s.Do("GET", "n"); n != "1" {
			return fmt.Errorf("n is %v, want 1", n)
		}
		return nil
	})
	s.Pause()
	s.Stop()
	wantEqual(t, "running after Stop", s.Running(), false)
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func TestRestartWaitsForItsPort(t *testing.T) {
	s := Start(t)
	s.Kill()
	thief, err := net.Listen("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	time.AfterFunc(300*time.Millisecond, func() { gone <- thief.Close() })
	s.Restart()
	select {
	case err := <-gone:
		if err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatal("the server runs on a port that something else has")
	}
	wantEqual(t, "PING", s.Do("PING"), any("PONG"))
}

func TestServersStartedTogetherDoNotCollide(t *testing.T) {
	var servers [8]*Server
	err := each(servers[:], func(i int, _ *Server) (err error) {
		servers[i], err = launch(t, setup{})
		return err
	})
	cleanUp(t, servers[:]...)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range servers {
		s.Do("SET", "i", i)
	}
	for i, s := range servers {
		wantEqual(t, "i on "+s.Addr, s.Do("GET", "i"), any(fmt.Sprint(i)))
	}
}

func TestPasswordIsUsedByAllThatKnowsIt(t *testing.T) {
	const password = `s p@ss"w\ord:/` + "\t\x7fé"
	s := Start(t, "--requirepass", password)
	wantEqual(t, "requirepass", s.Client().ConfigGet(within(t, time.Second), "requirepass").Val()["requirepass"], password)
	opt, err := redis.ParseURL(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "password of the URL", opt.Password, password)
	r := Replica(t, s)
	s.Do("SET", "k", "v")
	r.CatchUp(s)
	wantEqual(t, "k", r.Do("GET", "k"), any("v"))
}

func TestMissingRedisFailsAndSaysHowToInstallIt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	went := false
	err := Run(t.Logf, func(t T) {
		Start(t)
		went = true
	})
	if went || err == nil || !strings.Contains(err.Error(), "sudo apt-get install -y redis-server") {
		t.Fatalf("got %v, want the command that installs redis-server", err)
	}
}

func TestBadArgumentsFailWithWhatRedisSaid(t *testing.T) {
	for _, args := range [][]string{{"--nonsense", "1"}, {"nonsense", "1"}} {
		err := Run(t.Logf, func(t T) { Start(t, args...) })
		if err == nil || !strings.Contains(err.Error(), "nonsense") {
			t.Errorf("Start(%q): got %v, want an error that names the argument", args, err)
		}
	}
}

func TestCommandOnADeadServerFails(t *testing.T) {
	err := Run(t.Logf, func(t T) {
		s := Start(t)
		s.Kill()
		s.Do("PING")
	})
	if err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Fatalf("got %v, want an error that says that the server does not run", err)
	}
}

func TestRunLeavesNothing(t *testing.T) {
	var s *Server
	var order []string
	err := Run(t.Logf, func(t T) {
		t.Cleanup(func() { order = append(order, "first") })
		s = Start(t)
		t.Cleanup(func() {
			order = append(order, "last")
			t.Fatalf("in a cleanup")
		})
		s.Pause()
		t.Fatalf("in %s", "f")
	})
	if err == nil || err.Error() != "in f\nin a cleanup" {
		t.Fatalf("got %v, want both failures", err)
	}
	wantEqual(t, "order of cleanups", strings.Join(order, " "), "last first")
	wantEqual(t, "running after Run", s.Running(), false)
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
		t.Fatalf("%s after Run: got %v, want that it does not exist", s.Dir, err)
	}
}

func TestServersDieWithTheTestBinary(t *testing.T) {
	self := exec.Command(os.Args[0], "-test.run=^$")
	self.Env = append(os.Environ(), orphanMaker+"=1")
	out, err := self.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Start(); err != nil {
		t.Fatal(err)
	}
	var addr, dir string
	_, scanErr := fmt.Fscan(bufio.NewReader(out), &addr, &dir)
	var conn net.Conn
	if scanErr == nil {
		conn, err = net.Dial("tcp", addr)
	}
	if killErr := self.Process.Kill(); killErr != nil {
		t.Fatal(killErr)
	}
	_ = self.Wait() // says that it was killed
	if err := errors.Join(scanErr, err); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	defer conn.Close()
	// The connection ends because the server does.
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || isTimeout(err) {
		t.Fatalf("10 s after the test binary was killed: read %d bytes, %v; want the end", n, err)
	}
}

func TestServerMayBeUsedFromManyGoroutines(t *testing.T) {
	s := Start(t)
	var tasks sync.WaitGroup
	for range 4 {
		tasks.Go(func() {
			for range 20 {
				if s.Running() {
					_ = s.Client().Incr(context.Background(), "n").Err() // fails now and then
				}
				_, _ = s.info("server")
			}
		})
	}
	for range 3 {
		s.Kill()
		s.Restart()
	}
	tasks.Wait()
}

func FuzzQuotedWordsAreReadBackByRedisRules(f *testing.F) {
	for _, s := range []string{"", "60 1", `a"b\c`, "\x00\n\r\t", "é", "'x'", `\x41`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q := quote(s)
		if strings.ContainsAny(q, "\n\r\x00") {
			t.Fatalf("quote(%q) = %q would end the line", s, q)
		}
		got, err := unquote(q)
		if err != nil || got != s {
			t.Fatalf("quote(%q) = %s reads back as %q, %v", s, q, got, err)
		}
	})
}

// unquote reads a word in double quotes as Redis' configuration files have it.
func unquote(q string) (string, error) {
	inner, ok := strings.CutPrefix(q, `"`)
	if !ok {
		return "", errors.New("no opening quote")
	}
	var b strings.Builder
	for i := 0; i < len(inner); i++ {
		switch c := inner[i]; {
		case c == '"' && i == len(inner)-1:
			return b.String(), nil
		case c == '"':
			return "", errors.New("the closing quote is not the end")
		case c == '\\' && strings.HasPrefix(inner[i+1:], "x"):
			var v byte
			if _, err := fmt.Sscanf(inner[i+2:i+4], "%02x", &v); err != nil {
				return "", err
			}
			b.WriteByte(v)
			i += 3
		case c == '\\':
			i++
			b.WriteByte(inner[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("no closing quote")
}
