package grpcapi

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// maxIdle is how long a stream may bring nothing before its node is taken for dead. Nodes
// end streams sooner that wait for their callers.
const maxIdle = 5 * time.Minute

// An idleWatch ends a call over which nothing has come for too long.
type idleWatch struct {
	cancel context.CancelFunc
	timer  *time.Timer
	fired  atomic.Bool
}

// watchIdle returns a context for a call, which ends at the latest with stop.
func watchIdle(ctx context.Context) (context.Context, *idleWatch) {
	ctx, cancel := context.WithCancel(ctx)
	w := &idleWatch{cancel: cancel}
	w.timer = time.AfterFunc(maxIdle, func() {
		w.fired.Store(true)
		cancel()
	})
	return ctx, w
}

// wait says that the node has to send something now, and pause that it need not.
func (w *idleWatch) wait()  { w.timer.Reset(maxIdle) }
func (w *idleWatch) pause() { w.timer.Stop() }

func (w *idleWatch) stop() {
	w.timer.Stop()
	w.cancel()
}

// cause returns the error of the call, or if it was ended here, one that says so.
func (w *idleWatch) cause(err error) error {
	if w.fired.Load() {
		return fmt.Errorf("%w: nothing came from the node for %v", ErrUnreachable, maxIdle)
	}
	return err
}
