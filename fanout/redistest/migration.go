package redistest

import (
	"errors"
	"fmt"
	"time"
)

// Migration is a slot on its way from one master to another. Between Move and
// Finish keys that have left are found by following ASK.
type Migration struct {
	c        *Cluster
	slot     int
	from, to *Server
	fromID   any
	toID     any
}

// MigrateSlot moves a slot with all its keys to another master while clients
// may go on, and returns when all nodes know.
func (c *Cluster) MigrateSlot(slot int, to *Server) {
	c.t.Helper()
	m := c.BeginMigration(slot, to)
	m.Move()
	m.Finish()
}

// BeginMigration opens the slot on both sides: keys that its master does not
// have are asked for, and created, at the other.
func (c *Cluster) BeginMigration(slot int, to *Server) *Migration {
	c.t.Helper()
	m := &Migration{c: c, slot: slot, from: c.MasterOf(slot), to: to}
	if m.from == to {
		m.check(errors.New("it is there already"))
	}
	var err error
	if m.fromID, err = m.from.do("CLUSTER", "MYID"); err == nil {
		m.toID, err = to.do("CLUSTER", "MYID")
	}
	if err == nil {
		_, err = to.do("CLUSTER", "SETSLOT", slot, "IMPORTING", m.fromID)
	}
	if err == nil {
		_, err = m.from.do("CLUSTER", "SETSLOT", slot, "MIGRATING", m.toID)
	}
	m.check(err)
	return m
}

// Move hands the keys over until none is left.
func (m *Migration) Move() {
	m.c.t.Helper()
	m.check(m.move())
}

func (m *Migration) move() error {
	const batch, timeout = 100, 5000 // keys, ms
	for {
		reply, err := m.from.do("CLUSTER", "GETKEYSINSLOT", m.slot, batch)
		if err != nil {
			return err
		}
		keys, _ := reply.([]any)
		if len(keys) == 0 {
			return nil
		}
		args := []any{"MIGRATE", "127.0.0.1", m.to.port.number, "", 0, timeout}
		if m.to.password != "" {
			args = append(args, "AUTH", m.to.password)
		}
		if _, err := m.from.do(append(append(args, "KEYS"), keys...)...); err != nil {
			return err
		}
	}
}

// Finish gives the slot to its new master, moving what keys are left, and
// returns when all running nodes know.
func (m *Migration) Finish() {
	m.c.t.Helper()
	// The new master first: were the old one to go first and the new one to die,
	// nobody would own the slot.
	_, err := m.to.do("CLUSTER", "SETSLOT", m.slot, "NODE", m.toID)
	if err == nil {
		// Refused while keys are there, and a client may have written one more.
		err = poll(failoverLimit, time.Millisecond, func() error {
			if err := m.move(); err != nil {
				return hopeless{err}
			}
			_, err := m.from.do("CLUSTER", "SETSLOT", m.slot, "NODE", m.toID)
			return err
		})
	}
	if err == nil {
		_, err = m.c.agreed(m.slot, func(owner *Server) bool { return owner == m.to })
	}
	m.check(err)
}

func (m *Migration) check(err error) {
	m.c.t.Helper()
	m.c.check(fmt.Sprintf("moving slot %d from %s to %s", m.slot, m.from.Addr, m.to.Addr), err)
}
