package limit

import "sync"

// Counts says how many of a thing each key holds, and refuses more than a maximum. Its
// methods may be called from any goroutine and do not block. A key that holds nothing
// takes no memory, so the table is as large as what is held.
type Counts struct {
	mu    sync.Mutex // guards the fields below
	most  int        // a key may hold; no limit if zero
	held  map[string]int
	total int
}

// NewCounts makes a table in which a key may hold most things at a time; with 0 they
// are counted only.
func NewCounts(most int) *Counts {
	return &Counts{most: most, held: map[string]int{}}
}

// SetMost changes the maximum. What is held beyond a lower one stays.
func (c *Counts) SetMost(most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = most
}

// Acquire counts one more for the key, unless it holds the maximum. Whoever gets true
// owes one Release.
func (c *Counts) Acquire(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most > 0 && c.held[key] >= c.most {
		return false
	}
	c.held[key]++
	c.total++
	return true
}

// Release counts one less for the key. For a key that holds nothing it does nothing,
// so that a fault in the books never lets a count go below what is there.
func (c *Counts) Release(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.held[key]
	if n == 0 {
		return
	}
	c.total--
	if n == 1 {
		delete(c.held, key)
		return
	}
	c.held[key] = n - 1
}

// Held returns how many the key holds.
func (c *Counts) Held(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held[key]
}

// Total returns how many all keys hold.
func (c *Counts) Total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}
