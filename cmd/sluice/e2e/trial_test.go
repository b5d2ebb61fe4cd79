package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// trial is one run of publishers and readers against some gateways, and what
// came of it.
type trial struct {
	t       *testing.T
	ctx     context.Context
	client  *http.Client
	ledger  *ledger
	verdict *verdict
	tally   *tally
	returns moments // of streams that ended

	publishers, readers sync.WaitGroup
	all                 []*reader
}

// newTrial begins a trial that takes at most limit. Whatever it started has
// ended when the test has.
func newTrial(t *testing.T, client *http.Client, limit time.Duration) *trial {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	tr := &trial{t: t, ctx: ctx, client: client, ledger: newLedger(), verdict: newVerdict(), tally: newTally()}
	t.Cleanup(func() {
		cancel()
		tr.publishers.Wait()
		tr.readers.Wait()
		client.CloseIdleConnections()
	})
	return tr
}

// newClient gives a client whose connections are its own.
func newClient() *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	return &http.Client{Transport: transport}
}

// read sets readers to work and returns when all of them have a stream.
func (tr *trial) read(readers ...*reader) {
	tr.t.Helper()
	tr.all = append(tr.all, readers...)
	for _, r := range readers {
		newReader(tr, r)
		tr.readers.Go(func() { r.run(tr.ctx) })
	}
	tr.await("opened", len(tr.all))
}

// publish sets publishers to work.
func (tr *trial) publish(publishers ...*publisher) {
	for _, p := range publishers {
		p.trial = tr
		tr.publishers.Go(func() { p.run(tr.ctx) })
	}
}

// await waits until something has been counted n times, or was wrong.
func (tr *trial) await(what string, n int) {
	tr.t.Helper()
	if err := tr.tally.await(tr.ctx, tr.verdict.spoken, what, n); err != nil {
		tr.verdict.wrong(strange, "%v", err)
		tr.verdict.report(tr.t, "ended early")
	}
}

// finish waits for the publishers, ends every room's story, waits until every
// reader has seen that, and compares what they saw with what was acknowledged.
func (tr *trial) finish(rooms, bases []string, want int) {
	tr.t.Helper()
	tr.publishers.Wait()
	tr.publish(&publisher{name: "finish", bases: bases, rooms: rooms, events: len(rooms), kind: last})
	tr.publishers.Wait()
	tr.readers.Wait()
	events, deliveries := tr.ledger.check(tr.verdict), 0
	if events != want+len(rooms) {
		tr.verdict.wrong(strange, "%d events were acknowledged, want %d", events, want+len(rooms))
	}
	for _, r := range tr.all {
		deliveries += r.audit()
	}
	tr.verdict.report(tr.t, fmt.Sprintf("%d events in %d rooms, %d deliveries to %d streams, of which %d were resumed, %d POSTs repeated",
		events, len(rooms), deliveries, len(tr.all), tr.tally.of("resumed"), tr.tally.of("repeated")))
}

// roomNames gives names of n rooms.
func roomNames(n int) []string {
	rooms := make([]string, n)
	for i := range rooms {
		rooms[i] = fmt.Sprintf("trial:%02d", i)
	}
	return rooms
}

// publishersOf gives publishers who share out so many events, and begin at
// different gateways and rooms.
func publishersOf(n, events int, bases, rooms []string) []*publisher {
	list := make([]*publisher, n)
	for i := range list {
		list[i] = &publisher{
			name: fmt.Sprintf("p%d", i), events: events / n,
			bases: beginningWith(i, bases), rooms: beginningWith(i*len(rooms)/n, rooms),
			batch: []int{1, 1, 20, 1}[i%4],
			pair:  i%4 == 3,
		}
	}
	return list
}

// readersOf gives readers of every make, spread over gateways and rooms; from
// tells them apart from those made before.
func readersOf(from, n int, bases, rooms []string) []*reader {
	list := make([]*reader, n)
	for i := range list {
		k := from + i
		r := &reader{
			name: fmt.Sprintf("reader %d", k), bases: beginningWith(k, bases),
			// Neither goes with the form, nor with each other.
			way: way(k / 4 % 3), rooms: beginningWith(k*7/2, rooms)[:1],
		}
		switch k % 4 {
		case 0:
			r.as = raw
		case 1:
			r.as = enveloped
		case 2:
			r.as = ndjson
		case 3:
			r.as = []form{enveloped, ndjson}[k/4%2]
			r.rooms = beginningWith(k, rooms)[:min(3, len(rooms))]
		}
		list[i] = r
	}
	return list
}
