package fanout

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"time"
)

// signal is what nodes say to each other, all to all.
type signal struct {
	Ask    string       `json:"ask,omitempty"`    // id of a question:
	Room   string       `json:"room,omitempty"`   // how many streams has this room, with you?
	Find   string       `json:"find,omitempty"`   // or: have you the stream with this id?
	Lease  *leaseSignal `json:"lease,omitempty"`  // which is to have this lease from now on
	Answer string       `json:"answer,omitempty"` // id of the question that is answered
	Count  int          `json:"count,omitempty"`  // by the number of streams
	Stream *StreamInfo  `json:"stream,omitempty"` // or by what is known of it

	End    string `json:"end,omitempty"`    // id of a stream whose client has left it
	Before int    `json:"before,omitempty"` // unless its turn is this one or later; 0: whatever its turn

	Watching bool `json:"watching,omitempty"` // somebody with me watches the nodes' reports
}

// question collects answers.
type question struct {
	answers chan signal
}

// askFor bounds how long the other nodes' answers are waited for.
const askFor = 500 * time.Millisecond

// Streams counts the streams in a room, on all nodes; if not all of them
// answer in time, on those that did.
func (h *Hub) Streams(ctx context.Context, room string) int {
	total := 0
	err := h.ask(ctx, signal{Room: room}, func(answer signal) bool {
		total += answer.Count
		return false
	})
	if err != nil {
		return h.localStreams(room)
	}
	return total
}

// ask sends a question to all nodes and hands their answers on, until that
// says that it has heard enough, or those who have not answered in time will not.
func (h *Hub) ask(ctx context.Context, s signal, answered func(signal) (enough bool)) error {
	s.Ask = rand.Text()
	q := &question{answers: make(chan signal, 256)}
	h.mu.Lock()
	h.asked[s.Ask] = q
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.asked, s.Ask)
		h.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	nodes, err := h.send(ctx, s)
	if err != nil {
		return err
	}
	for range nodes {
		select {
		case answer := <-q.answers:
			if answered(answer) {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (h *Hub) localStreams(room string) int {
	r := h.room(room)
	if r == nil {
		return 0
	}
	return r.streams()
}

func (h *Hub) send(ctx context.Context, s signal) (nodes int, err error) {
	message, err := json.Marshal(s)
	if err != nil {
		return 0, err
	}
	return h.log.Signal(ctx, message)
}

// EndStream ends a stream wherever it is, as its own client asked.
func (h *Hub) EndStream(ctx context.Context, id string) error {
	_, err := h.send(ctx, signal{End: id})
	return err
}

// Signal implements Feed.
func (h *Hub) Signal(message []byte) {
	var s signal
	if json.Unmarshal(message, &s) != nil {
		return // not from one of us
	}
	switch {
	case s.Answer != "":
		h.mu.RLock()
		q := h.asked[s.Answer]
		h.mu.RUnlock()
		if q == nil {
			return
		}
		select {
		case q.answers <- s:
		default: // more answers than nodes
		}
	case s.Ask != "":
		answer := signal{Answer: s.Ask}
		if s.Find != "" {
			answer.Stream = h.found(s)
		} else {
			answer.Count = h.localStreams(s.Room)
		}
		h.spawn(func() {
			ctx, cancel := context.WithTimeout(h.ctx, askFor)
			defer cancel()
			_, _ = h.send(ctx, answer) // who asked does not wait for ever
		})
	case s.Watching:
		h.watched.Store(time.Now().UnixNano())
	case s.End != "":
		for _, stream := range h.allStreams() {
			if _, turn := h.leases.get(stream); stream.ID() == s.End && (s.Before == 0 || turn < s.Before) {
				stream.End(ByeLeft)
			}
		}
		if s.Before == 0 {
			h.presence.goodbye(s.End)
		}
	}
}
