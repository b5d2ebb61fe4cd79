package fanout

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// memoryStore is the Store of a single node. The zero value is empty.
type memoryStore struct {
	mu      sync.Mutex // guards the fields below
	values  map[string]memoryValue
	lists   map[string]map[string]memoryMark
	buckets map[string]time.Time // when each is full
	swept   time.Time
}

type memoryValue struct {
	value   []byte
	expires time.Time
}

type memoryMark struct{ at, expires time.Time }

// Load implements Store.
func (m *memoryStore) Load(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.loadLocked(key, time.Now())), nil
}

func (m *memoryStore) loadLocked(key string, now time.Time) []byte {
	v, ok := m.values[key]
	if !ok || !now.Before(v.expires) {
		return nil
	}
	return v.value
}

// Swap implements Store.
func (m *memoryStore) Swap(_ context.Context, key string, old, value []byte, ttl time.Duration) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.sweepLocked(now)
	if known := m.loadLocked(key, now); (known == nil) != (old == nil) || !bytes.Equal(known, old) {
		return false, nil
	}
	if value == nil || ttl <= 0 {
		delete(m.values, key)
		return true, nil
	}
	if m.values == nil {
		m.values = map[string]memoryValue{}
	}
	m.values[key] = memoryValue{slices.Clone(value), now.Add(ttl)}
	return true, nil
}

// Mark implements Store.
func (m *memoryStore) Mark(_ context.Context, list, member string, keep time.Duration) (time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.sweepLocked(now)
	if m.lists == nil {
		m.lists = map[string]map[string]memoryMark{}
	}
	if m.lists[list] == nil {
		m.lists[list] = map[string]memoryMark{}
	}
	at := now.Truncate(time.Millisecond)
	m.lists[list][member] = memoryMark{at, now.Add(keep)}
	return at, nil
}

// Marks implements Store.
func (m *memoryStore) Marks(_ context.Context, list string, since time.Time) ([]Mark, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var marks []Mark
	for member, mark := range m.lists[list] {
		if !mark.at.Before(since.Truncate(time.Millisecond)) && now.Before(mark.expires) {
			marks = append(marks, Mark{member, mark.at})
		}
	}
	slices.SortFunc(marks, func(a, b Mark) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Member, b.Member))
	})
	return marks, nil
}

// Spend implements Store.
func (m *memoryStore) Spend(_ context.Context, spent []Spending) ([]time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.sweepLocked(now)
	if m.buckets == nil {
		m.buckets = map[string]time.Time{}
	}
	full := make([]time.Duration, len(spent))
	for i, s := range spent {
		lacks := max(0, m.buckets[s.Key].Sub(now))
		full[i] = min(lacks+s.Cost, s.Most)
		m.buckets[s.Key] = now.Add(full[i])
	}
	return full, nil
}

// sweepLocked forgets what is past its time, not oftener than once a minute.
func (m *memoryStore) sweepLocked(now time.Time) {
	if now.Sub(m.swept) < time.Minute {
		return
	}
	m.swept = now
	for key, v := range m.values {
		if !now.Before(v.expires) {
			delete(m.values, key)
		}
	}
	for list, marks := range m.lists {
		for member, mark := range marks {
			if !now.Before(mark.expires) {
				delete(marks, member)
			}
		}
		if len(marks) == 0 {
			delete(m.lists, list)
		}
	}
	for key, full := range m.buckets {
		if !now.Before(full) {
			delete(m.buckets, key)
		}
	}
}
