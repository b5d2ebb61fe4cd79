package redistest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
)

// Servers get ports below the range from which kernels take those of outgoing
// connections (32768 and up on Linux). Otherwise the port of a killed server
// could be taken by anybody's connection before the restart, or a client that
// keeps dialling it could even connect to itself.
const (
	firstPort = 12000
	ports     = 10000
	busOffset = 10000 // a Cluster node's second port, as Redis itself chooses it
)

// port is a TCP port that no other rig on this machine takes as long as it is
// held, whether or not something listens on it. What keeps the others away is
// a UDP socket of the same number: the kernel arbitrates, and nothing is left
// behind when the process dies.
type port struct {
	number int
	hold   []io.Closer
}

// reserve finds a free port; with bus, one whose bus port is free as well.
func reserve(bus bool) (*port, error) {
	const attempts = 200
	var last error
	for range attempts {
		p := &port{number: firstPort + rand.IntN(ports)}
		wanted := []int{p.number}
		if bus {
			wanted = append(wanted, p.number+busOffset)
		}
		if last = p.take(wanted); last == nil {
			return p, nil
		}
		p.release()
	}
	return nil, fmt.Errorf("looking for a free port on loopback, %d times: %w", attempts, last)
}

func (p *port) take(numbers []int) error {
	for _, n := range numbers {
		addr := loopback(n)
		held, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		p.hold = append(p.hold, held)
		free, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		if err := free.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (p *port) release() error {
	var errs []error
	for _, h := range p.hold {
		errs = append(errs, h.Close())
	}
	p.hold = nil
	return errors.Join(errs...)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
