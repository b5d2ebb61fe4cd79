package limit

import (
	"sync"
	"time"
)

// Recent remembers names that came lately. Its methods may be called from any
// goroutine and do not block. It holds a bounded number: of a flood of names
// the older ones are forgotten early.
type Recent struct {
	most int           // names in one of the maps
	keep time.Duration // after which the maps turn

	mu          sync.Mutex // guards the fields below
	young, aged map[string]struct{}
	turned      time.Time
}

// NewRecent remembers about so many names, for keep to twice that.
func NewRecent(most int, keep time.Duration) *Recent {
	return &Recent{
		most: max(1, most/2), keep: keep, turned: time.Now(),
		young: map[string]struct{}{}, aged: map[string]struct{}{},
	}
}

// Has says whether the name came lately; if so, it has come again now.
func (r *Recent) Has(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turnLocked()
	if _, ok := r.young[name]; ok {
		return true
	}
	if _, ok := r.aged[name]; !ok {
		return false
	}
	r.addLocked(name)
	return true
}

// Add remembers a name.
func (r *Recent) Add(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turnLocked()
	r.addLocked(name)
}

func (r *Recent) addLocked(name string) {
	r.young[name] = struct{}{}
	if len(r.young) >= r.most {
		r.ageLocked()
	}
}

func (r *Recent) turnLocked() {
	if time.Since(r.turned) >= r.keep {
		r.ageLocked()
	}
}

func (r *Recent) ageLocked() {
	r.aged, r.young = r.young, map[string]struct{}{}
	r.turned = time.Now()
}
