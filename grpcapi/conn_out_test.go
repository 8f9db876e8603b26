package grpcapi

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// While the other end does not take what is written, little more is read from it; it goes on
// when it does. Of a stranger less is read, and at once.
func TestReadWhileStuck(t *testing.T) {
	for stranger, most := range map[bool]int{true: strangerRead, false: stuckRead} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			var open connSet
			c := newLimitedConn(here)
			c.stranger.Store(stranger)
			c.open = &open
			open.add(c)
			go c.Write([]byte("refused"))
			go there.Write(make([]byte, 3*stuckRead))
			total, ended := 0, false
			go func() {
				buf := make([]byte, 4*stuckRead)
				for total < 3*stuckRead {
					n, err := c.Read(buf)
					if total += n; err != nil || stranger && n > strangerRead {
						t.Errorf("%d bytes at once, %v", n, err)
						break
					}
				}
				ended = true
			}()
			synctest.Wait()
			if limit := 3 * stuckRead; stranger && total != most || !stranger && (total < most || total > limit) {
				t.Errorf("stranger %t: %d bytes are read behind a write that stands still, want %d", stranger, total, most)
			}
			if got := open.stuck(time.Now(), 0, 0); len(got) != 0 {
				t.Errorf("%d connections have been stuck for no time", len(got))
			}
			time.Sleep(2 * time.Second)
			if got := open.stuck(time.Now(), time.Minute, time.Second); (len(got) == 1) != stranger {
				t.Errorf("stranger %t: %d connections are stuck", stranger, len(got))
			}
			if got := open.stuck(time.Now(), time.Second, time.Second); len(got) != 1 {
				t.Errorf("%d connections are stuck", len(got))
			}
			buf := make([]byte, 100)
			if _, err := there.Read(buf); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if !ended {
				t.Errorf("stranger %t: %d bytes are read when the write has ended", stranger, total)
			}
			if got := open.stuck(time.Now(), 0, 0); len(got) != 0 {
				t.Errorf("%d connections are stuck when the write has ended", len(got))
			}
			c.Close()
			there.Close()
			if len(open.all) != 0 {
				t.Error("a connection that is closed counts as open")
			}
		})
	}
}
