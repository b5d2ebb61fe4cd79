package fanout

import (
	"context"
	"time"
)

// Store keeps small things beside the rooms, where every node finds them: what
// has to hold on all nodes and is no event. Each thing is kept for a bounded
// time. Keys and members are the caller's; they hold no secret, since whoever
// may read the log's server sees them. An error is ErrUnavailable, and may mean
// that the change was made all the same.
type Store interface {
	// Load gives what is kept under key, nil if nothing is.
	Load(ctx context.Context, key string) ([]byte, error)

	// Swap puts value in the place of old, for the time of ttl, if old is what
	// is kept; a nil old stands for nothing, and a nil value leaves nothing.
	// Of several that swap at once only one is told true.
	Swap(ctx context.Context, key string, old, value []byte, ttl time.Duration) (bool, error)

	// Mark puts a member on a list, once, with the time at which that happened
	// by the store's clock, which it returns. Marks lists the members that were
	// marked since, the oldest first. keep is how long a mark stays; all marks
	// of one list are kept equally long.
	Mark(ctx context.Context, list, member string, keep time.Duration) (time.Time, error)
	Marks(ctx context.Context, list string, since time.Time) ([]Mark, error)

	// Spend takes what was given out from buckets that all nodes share, and
	// says of each how long it needs to be full again.
	Spend(ctx context.Context, spent []Spending) (full []time.Duration, err error)
}

// Mark is a member of a list, and since when.
type Mark struct {
	Member string
	At     time.Time // in milliseconds
}

// Spending is what a node gave out of a bucket. A bucket is measured by the
// time that it takes to fill.
type Spending struct {
	Key  string
	Cost time.Duration // in which what was given out flows in again
	Most time.Duration // a bucket lacks no more than this, whatever is taken
}
