package fanout

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// taken gives the socket of one end of a connection, which ends with the test.
func taken(t *testing.T, timeout time.Duration) (socket, net.Conn) {
	t.Helper()
	server, client := connect(t)
	s, ok := takeSocket(server, timeout)
	if !ok {
		t.Fatal("a TCP connection cannot be taken over")
	}
	t.Cleanup(s.close)
	return s, client
}

func TestTakenConnectionGivesUpAVanishedClient(t *testing.T) {
	s, _ := taken(t, 7*time.Second)
	timeout, _ := unix.GetsockoptInt(int(s), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	keepAlive, _ := unix.GetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
	if timeout != 7000 || keepAlive == 0 {
		t.Errorf("the time-out is %d ms, keep-alive %d", timeout, keepAlive)
	}
	again, err := s.conn()
	if err != nil {
		t.Fatalf("nobody can wait for it: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write([]byte("still open")); err != nil {
		t.Errorf("it was closed with the connection made of it: %v", err)
	}
}

func TestHangUpIsSeenBehindUnreadData(t *testing.T) {
	s, client := taken(t, time.Second)
	if _, err := client.Write([]byte("garbage")); err != nil {
		t.Fatal(err)
	}
	if s.hungUp() {
		t.Error("a client that talks is taken for one that has left")
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Second, "the hang-up", s.hungUp)
}
