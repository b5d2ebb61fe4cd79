package fanout

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// pages keeps what was just read of a room's older events, because those who
// come back together ask for the same. A page begins at a multiple of
// pageEvents, so that streams at different places share it.
type pages struct {
	mu   sync.Mutex
	kept map[uint64]page // by the number behind which they begin
	age  int             // counts what forget has thrown away
}

type page struct {
	extent Extent   // of the log, when it was read
	frames []*frame // consecutive
	read   time.Time
	age    int // of the pages, before it was read
}

// after gives the frames behind number seq, if they begin with seq+1.
func (p page) after(seq uint64) []*frame {
	if len(p.frames) == 0 {
		return nil
	}
	first := p.frames[0].seq
	if seq+1 < first || seq+1-first >= uint64(len(p.frames)) {
		return nil
	}
	return p.frames[seq+1-first:]
}

func newPage(h History) page {
	p := page{extent: h.Extent, frames: make([]*frame, len(h.Events)), read: time.Now()}
	for i, e := range h.Events {
		p.frames[i] = eventFrame(e, e.Seq)
	}
	return p
}

const (
	pageEvents = 512             // events of a page
	pageLife   = 5 * time.Second // how long one is good for
	pagesKept  = 4               // of a room
)

// forget drops what was read, since the history has changed.
func (p *pages) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = nil
	p.age++
}

func (p *pages) find(begin, seq uint64) (page, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	got, ok := p.kept[begin]
	if !ok || time.Since(got.read) > pageLife || len(got.after(seq)) == 0 {
		return page{}, false
	}
	return got, true
}

func (p *pages) keep(begin uint64, fresh page) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if fresh.age != p.age {
		return
	}
	if p.kept == nil {
		p.kept = map[uint64]page{}
	}
	for begin, old := range p.kept {
		if len(p.kept) >= pagesKept || time.Since(old.read) > pageLife {
			delete(p.kept, begin)
		}
	}
	p.kept[begin] = fresh
}

func (p *pages) now() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.age
}

// page gives a piece of the room's history that goes on behind number seq, or
// shows that it cannot. Streams that want the same share one read.
func (r *room) page(ctx context.Context, seq uint64) (page, error) {
	begin := seq - seq%pageEvents
	p, err := r.pageFrom(ctx, begin, seq)
	if err != nil || len(p.after(seq)) > 0 || begin == seq {
		return p, err
	}
	// The page ended before seq, at its limit of bytes, or has grown since.
	return r.pageFrom(ctx, seq, seq)
}

func (r *room) pageFrom(ctx context.Context, begin, seq uint64) (page, error) {
	if p, ok := r.pages.find(begin, seq); ok {
		return p, nil
	}
	// Nobody joins a read that began before the history changed.
	age := r.pages.now()
	flight := r.hub.flights.DoChan(fmt.Sprint(r.name, " ", begin, " ", age), func() (any, error) {
		ctx, cancel := context.WithTimeout(r.hub.ctx, commandTimeout)
		defer cancel()
		r.hub.stats.PagesRead.Add(1)
		h, err := r.hub.log.Read(ctx, r.name, int64(begin), pageEvents)
		if err != nil {
			return nil, err
		}
		fresh := newPage(h)
		fresh.age = age
		r.pages.keep(begin, fresh)
		return fresh, nil
	})
	select {
	case got := <-flight:
		if got.Err != nil {
			return page{}, got.Err
		}
		return got.Val.(page), nil
	case <-ctx.Done():
		return page{}, ctx.Err()
	}
}
