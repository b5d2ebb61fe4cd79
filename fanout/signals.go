package fanout

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"time"
)

// signal is what nodes say to each other, all to all.
type signal struct {
	Ask    string `json:"ask,omitempty"`    // id of a question: how many streams has Room, with you?
	Room   string `json:"room,omitempty"`   //
	Answer string `json:"answer,omitempty"` // id of the question that Count answers
	Count  int    `json:"count,omitempty"`
	End    string `json:"end,omitempty"` // id of a stream whose client has left it
}

// question collects answers.
type question struct {
	answers chan int
}

// askFor bounds how long the other nodes' answers are waited for.
const askFor = 500 * time.Millisecond

// Streams counts the streams in a room, on all nodes; if not all of them
// answer in time, on those that did.
func (h *Hub) Streams(ctx context.Context, room string) int {
	id := rand.Text()
	q := &question{answers: make(chan int, 256)}
	h.mu.Lock()
	h.asked[id] = q
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.asked, id)
		h.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	nodes, err := h.send(ctx, signal{Ask: id, Room: room})
	if err != nil {
		return h.localStreams(room)
	}
	total := 0
	for range nodes {
		select {
		case n := <-q.answers:
			total += n
		case <-ctx.Done():
			return total
		}
	}
	return total
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
		case q.answers <- s.Count:
		default: // more answers than nodes
		}
	case s.Ask != "":
		answer := signal{Answer: s.Ask, Count: h.localStreams(s.Room)}
		h.spawn(func() {
			ctx, cancel := context.WithTimeout(h.ctx, askFor)
			defer cancel()
			_, _ = h.send(ctx, answer) // who asked does not wait for ever
		})
	case s.End != "":
		for _, stream := range h.allStreams() {
			if stream.ID() == s.End {
				stream.End(ByeLeft)
			}
		}
	}
}
