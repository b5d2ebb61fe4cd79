package fanout

import (
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParkedConnectionGivesUpAVanishedClient(t *testing.T) {
	server, _ := connect(t)
	raw, err := server.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	file, err := duplicate(raw, 7*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := net.FileConn(file)
	if err != nil {
		t.Fatalf("no connection can be made of the file: %v", err)
	}
	defer again.Close()
	parked, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var timeout, keepAlive int
	if err := parked.Control(func(fd uintptr) {
		timeout, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		keepAlive, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
	}); err != nil {
		t.Fatal(err)
	}
	if timeout != 7000 || keepAlive == 0 {
		t.Errorf("the time-out is %d ms, keep-alive %d", timeout, keepAlive)
	}
}

func TestHangUpIsSeenBehindUnreadData(t *testing.T) {
	server, client := connect(t)
	defer server.Close()
	raw, err := server.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("garbage")); err != nil {
		t.Fatal(err)
	}
	if hungUp(raw) {
		t.Error("a client that talks is taken for one that has left")
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Second, "the hang-up", func() bool { return hungUp(raw) })
}
