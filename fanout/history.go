package fanout

import (
	"context"
	"errors"
	"slices"
	"time"
)

// ErrBadCursor says that a page was asked for from a position that cannot be
// read or does not exist.
var ErrBadCursor = errors.New("the cursor leads nowhere")

// Page is a piece of history, oldest event first.
type Page struct {
	Events []Event
	Next   string // cursor that goes on behind the page
	Prev   string // cursor before which older events are kept; "" if none are, or the page went forward
	Gaps   []*Gap // that stand before the first event of their room
}

// PageAfter gives at most limit events behind the starts; of several rooms, in
// the order in which they were taken as far as that keeps each room's order.
func (h *Hub) PageAfter(ctx context.Context, rooms []string, starts []Start, limit int) (Page, error) {
	var page Page
	histories := make([][]Event, len(rooms))
	at := make([]Position, len(rooms))
	for i, room := range rooms {
		history, res, err := h.readFrom(ctx, room, starts[i], limit)
		if err != nil {
			return Page{}, err
		}
		histories[i] = history.Events
		at[i] = res.Own
		if res.Reason != "" {
			at[i] = history.Lineage.Position(res.From)
			gap := &Gap{Room: room, After: starts[i].at.String(), Missed: res.Missed, Reason: res.Reason, before: at[i]}
			if len(history.Events) > 0 {
				gap.ResumesAt = history.Events[0].Position
			}
			page.Gaps = append(page.Gaps, gap)
		}
	}
	page.Events = merge(histories, limit, func(i int, e Event) { at[i] = e.Position })
	page.Next = cursorOf(rooms, at)
	return page, nil
}

// readFrom reads what is behind a start.
func (h *Hub) readFrom(ctx context.Context, room string, start Start, limit int) (History, Resolution, error) {
	after := int64(0)
	switch start.kind {
	case fromHead:
		after, limit = -1, 0
	case fromLast:
		after = -int64(max(1, start.last))
	case fromPosition:
		after = int64(start.at.Seq)
	case fromBad:
		return History{}, Resolution{}, ErrBadCursor
	}
	for {
		history, err := h.Read(ctx, room, after, limit)
		if err != nil {
			return History{}, Resolution{}, err
		}
		res := history.Resolve(start)
		if res.Reason == ReasonBadCursor {
			return History{}, Resolution{}, ErrBadCursor
		}
		i := slices.IndexFunc(history.Events, func(e Event) bool { return e.Seq == res.From+1 })
		if i < 0 && res.From < history.Head && limit > 0 && after != int64(res.From) {
			after = int64(res.From) // the start leads elsewhere than was guessed
			continue
		}
		history.Events = history.Events[max(i, 0):]
		if i < 0 {
			history.Events = nil
		}
		return history, res, nil
	}
}

// merge puts rooms' events in one order, at most limit, and tells of each.
func merge(rooms [][]Event, limit int, took func(room int, e Event)) []Event {
	var merged []Event
	for len(merged) < limit {
		first := -1
		for i, events := range rooms {
			if len(events) > 0 && (first < 0 || events[0].At < rooms[first][0].At) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		merged = append(merged, rooms[first][0])
		took(first, rooms[first][0])
		rooms[first] = rooms[first][1:]
	}
	return merged
}

func cursorOf(rooms []string, at []Position) string {
	if len(rooms) == 1 {
		return at[0].String()
	}
	return string(appendCursor(nil, rooms, func(i int) Position { return at[i] }))
}

// PageBefore gives the newest events before the starts, at most limit; before
// everything that comes later, where a start is the head.
func (h *Hub) PageBefore(ctx context.Context, rooms []string, starts []Start, limit int) (Page, error) {
	histories := make([][]Event, len(rooms))
	next := make([]Position, len(rooms))
	oldest := make([]uint64, len(rooms))
	extents := make([]Extent, len(rooms))
	for i, room := range rooms {
		history, err := h.readBefore(ctx, room, starts[i], limit)
		if err != nil {
			return Page{}, err
		}
		slices.Reverse(history.Events)
		histories[i], extents[i] = history.Events, history.Extent
		next[i], oldest[i] = history.HeadPosition(), history.Head+1
		switch starts[i].kind {
		case fromPosition:
			oldest[i] = max(starts[i].at.Seq, 1)
			next[i] = history.Lineage.Position(oldest[i] - 1)
		case fromEarliest:
			oldest[i] = max(history.Oldest, 1)
			next[i] = history.Lineage.Position(oldest[i] - 1)
		}
	}
	page := Page{Next: cursorOf(rooms, next)}
	page.Events = mergeBack(histories, limit, func(i int, e Event) { oldest[i] = e.Seq })
	slices.Reverse(page.Events)
	more := false
	at := make([]Position, len(rooms))
	for i, x := range extents {
		more = more || oldest[i] > x.Oldest
		at[i] = x.Lineage.Position(oldest[i])
	}
	if more {
		page.Prev = cursorOf(rooms, at)
	}
	return page, nil
}

func (h *Hub) readBefore(ctx context.Context, room string, start Start, limit int) (History, error) {
	switch start.kind {
	case fromBad:
		return History{}, ErrBadCursor
	case fromEarliest:
		history, err := h.Read(ctx, room, -1, 0)
		return history, err
	case fromPosition:
	default:
		return h.readAll(ctx, room, -int64(limit), limit)
	}
	before := start.at.Seq
	history, err := h.readAll(ctx, room, max(0, int64(before)-1-int64(limit)), limit)
	if err != nil {
		return History{}, err
	}
	if res := history.Resolve(start); before != history.Head+1 && (res.Reason == ReasonBadCursor || res.Reason == ReasonNewHistory || res.Reason == ReasonTruncated) {
		return History{}, ErrBadCursor
	}
	history.Events = slices.DeleteFunc(history.Events, func(e Event) bool { return e.Seq >= before })
	return history, nil
}

// readAll reads until it has limit events, or all: the log may give fewer at a time.
func (h *Hub) readAll(ctx context.Context, room string, after int64, limit int) (History, error) {
	history, err := h.Read(ctx, room, after, limit)
	for err == nil && len(history.Events) > 0 && len(history.Events) < limit {
		last := history.Events[len(history.Events)-1].Seq
		if last >= history.Head {
			break
		}
		var more History
		more, err = h.Read(ctx, room, int64(last), limit-len(history.Events))
		if len(more.Events) == 0 || more.Events[0].Seq != last+1 {
			break
		}
		history.Events = append(history.Events, more.Events...)
	}
	return history, err
}

// mergeBack is merge for events that come newest first.
func mergeBack(rooms [][]Event, limit int, took func(room int, e Event)) []Event {
	var merged []Event
	for len(merged) < limit {
		last := -1
		for i, events := range rooms {
			if len(events) > 0 && (last < 0 || events[0].At > rooms[last][0].At) {
				last = i
			}
		}
		if last < 0 {
			break
		}
		merged = append(merged, rooms[last][0])
		took(last, rooms[last][0])
		rooms[last] = rooms[last][1:]
	}
	return merged
}

// Poll waits until there is an event of the wanted types behind the starts, at
// most for the given time, and gives what there is then, at most limit.
func (h *Hub) Poll(ctx context.Context, opt StreamOptions, limit int, wait time.Duration) (Page, error) {
	s, err := h.Open(ctx, opt)
	if err != nil {
		return Page{}, err
	}
	defer s.close()
	w := s.sitAside()
	page := Page{}
	shown := make([]Position, s.seats())
	for i := range shown {
		if s.seat(i).refused() {
			return Page{}, ErrBadCursor
		}
		shown[i] = *s.seat(i).at
	}
	deadline := time.Now().Add(wait)
	for {
		err := s.fill(ctx, &page, shown, limit)
		left := time.Until(deadline)
		if len(page.Events)+len(page.Gaps) > 0 || left <= 0 || s.ending() != "" {
			page.Next = cursorOf(opt.Rooms, shown)
			return page, nil
		}
		if err != nil || !s.downSince().IsZero() {
			return Page{}, ErrUnavailable
		}
		if err := w.wait(ctx, left); err != nil {
			return Page{}, err
		}
	}
}

// fill adds what is due to a page, as long as there is room, and shown behind it.
func (s *Stream) fill(ctx context.Context, to *Page, shown []Position, limit int) error {
	for i := range shown {
		seat := s.seat(i)
		items, older, more, _ := seat.take(nil, maxPageBytes)
		var err error
		if older {
			items, err = seat.readOlder(ctx, items, &page{}, maxPageBytes)
		}
		for j := range items {
			if len(to.Events) < limit {
				s.collect(to, &items[j], &shown[i])
			}
		}
		if err != nil {
			return err
		}
		if older || more {
			s.nudge()
		}
	}
	return nil
}

func (s *Stream) collect(page *Page, it *item, shown *Position) {
	if it.at != nil {
		*shown = *it.at
	}
	gap := it.gap
	if gap == nil {
		gap = it.frame.gap
	}
	switch {
	case gap != nil:
		page.Gaps = append(page.Gaps, gap)
	case s.wants(&it.frame.event):
		page.Events = append(page.Events, it.frame.event)
	}
}
