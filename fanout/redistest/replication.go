package redistest

import (
	"fmt"
	"strconv"
	"time"
)

const syncLimit = 20 * time.Second

// Replica starts a server that follows primary and returns when it holds a copy
// and is fed. It may follow a server that is a replica itself.
func Replica(t T, primary *Server, args ...string) *Server {
	t.Helper()
	if primary.password != "" {
		args = append([]string{"--masterauth", primary.password}, args...)
	}
	s := Start(t, args...)
	s.Follow(primary)
	return s
}

// Follow makes the server a replica of primary, which replaces all its data, and
// returns when it holds a copy and is fed. It stays a replica over a restart.
func (s *Server) Follow(primary *Server) {
	s.t.Helper()
	err := s.replicaOf("127.0.0.1", primary.port.number)
	if err == nil {
		err = poll(syncLimit, askEvery, s.fed)
	}
	s.check("following "+primary.Addr, err)
}

// Promote makes the server a primary, with what data it has. Its replication id
// (master_replid) changes.
func (s *Server) Promote() {
	s.t.Helper()
	_, err := s.do("REPLICAOF", "NO", "ONE")
	if err == nil {
		err = s.keep()
	}
	s.check("promoting", err)
}

// Detach cuts a replica off from its primary for good: it stays a replica, still
// answers, and falls behind without knowing, as behind a partition. What the
// primary is told from here on is lost when it dies and the replica is promoted.
func (s *Server) Detach() {
	s.t.Helper()
	s.check("detaching", s.replicaOf("127.0.0.1", 1)) // nothing listens there
}

// CatchUp waits until the replica has all that primary has written so far.
func (s *Server) CatchUp(primary *Server) {
	s.t.Helper()
	want, err := primary.offset("master_repl_offset")
	if err == nil {
		err = poll(syncLimit, askEvery, func() error {
			got, err := s.offset("slave_repl_offset")
			if err == nil && got < want {
				err = fmt.Errorf("it is at byte %d of %d", got, want)
			}
			return err
		})
	}
	s.check("catching up with "+primary.Addr, err)
}

func (s *Server) replicaOf(host string, port int) error {
	if _, err := s.do("REPLICAOF", host, strconv.Itoa(port)); err != nil {
		return err
	}
	return s.keep()
}

// keep writes the role into the configuration file.
func (s *Server) keep() error {
	_, err := s.do("CONFIG", "REWRITE")
	return err
}

// fed says what is missing until a replica gets what its primary writes. A
// primary counts as fed.
func (s *Server) fed() error {
	info, err := s.info("replication")
	if err == nil && info["role"] == "slave" && info["master_link_status"] != "up" {
		err = fmt.Errorf("replica %s: its link is %q", s.Addr, info["master_link_status"])
	}
	return err
}

func (s *Server) offset(field string) (int64, error) {
	info, err := s.info("replication")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(info[field], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s of %s: %w", field, s.Addr, err)
	}
	return n, nil
}
