package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"
)

// redisWords takes what go-redis has to say of its connections, which otherwise
// goes to stderr in a form of its own. It is detail: that Redis is out of reach,
// and why, the log of rooms says itself.
type redisWords struct{ logger *slog.Logger }

// Printf implements go-redis's logger.
func (w redisWords) Printf(ctx context.Context, format string, v ...any) {
	if w.logger.Enabled(ctx, slog.LevelDebug) {
		w.logger.DebugContext(ctx, "go-redis: "+oneLine(fmt.Sprintf(format, v...)))
	}
}

// hearRedis has go-redis speak to a logger. That holds for the whole process,
// whose only gateway is the one that asks for it.
func hearRedis(logger *slog.Logger) { redis.SetLogger(redisWords{logger}) }
