package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// One that wants the lock, with a lease of its own.
type contender struct {
	lease  clientv3.LeaseID
	key    string
	cancel context.CancelFunc
	in     chan error
}

func contend(ctx context.Context, c *clientv3.Client, name string) *contender {
	one := &contender{lease: must(c.Grant(ctx, 60)).ID, in: make(chan error, 1)}
	one.key = fmt.Sprintf("%s/%x", name, one.lease)
	call, cancel := context.WithCancel(ctx)
	one.cancel = cancel
	go func() {
		_, err := v3lockpb.NewLockClient(c.ActiveConnection()).Lock(call, &v3lockpb.LockRequest{Name: []byte(name), Lease: int64(one.lease)})
		one.in <- err
	}()
	// It is in the queue when its key is there.
	for len(must(c.Get(ctx, one.key)).Kvs) == 0 {
		check(ctx.Err() == nil, "%s was never written", one.key)
	}
	return one
}

func unlock(ctx context.Context, c *clientv3.Client, one *contender) {
	must(v3lockpb.NewLockClient(c.ActiveConnection()).Unlock(ctx, &v3lockpb.UnlockRequest{Key: []byte(one.key)}))
}

// Queues of v3lock: the order of coming, those who leave, those whose session ends, those who ask twice.
func queues(ctx context.Context, c *clientv3.Client) {
	var all []*contender
	for i := 0; i < 40; i++ {
		all = append(all, contend(ctx, c, "go/queue"))
	}
	check(<-all[0].in == nil, "the first is in")
	// The fourth goes away, the session of the sixth ends, the eighth asks twice.
	all[3].cancel()
	check(<-all[3].in != nil, "who goes away is not in")
	must(c.Revoke(ctx, all[5].lease))
	err := <-all[5].in
	check(err != nil && strings.Contains(err.Error(), "session is expired"), "an ended session: %v", err)
	twice := make(chan error)
	go func() {
		_, err := v3lockpb.NewLockClient(c.ActiveConnection()).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("go/queue"), Lease: int64(all[7].lease)})
		twice <- err
	}()
	for i, one := range all {
		if i == 3 || i == 5 {
			continue
		}
		if i > 0 {
			check(<-one.in == nil, "contender %d is in", i)
		}
		if i == 7 {
			check(<-twice == nil, "and who asks twice is told twice")
		}
		for _, later := range all[i+1:] {
			select {
			case err := <-later.in:
				check(false, "a later one was told %v during the turn of %d", err, i)
			default:
			}
		}
		unlock(ctx, c, one)
	}
	// More queues than stay open without waiters, and the first of them again.
	for i := 0; i < 80; i++ {
		name := fmt.Sprintf("go/queues/%d", i%70)
		first, second := contend(ctx, c, name), contend(ctx, c, name)
		check(<-first.in == nil, "free")
		unlock(ctx, c, first)
		check(<-second.in == nil, "passed on")
		unlock(ctx, c, second)
	}
	comeAndGo(ctx, c)
}

// Who comes while others wait may be written together with a release. One whose session does not exist spoils neither
// that nor the turn of the next.
func comeAndGo(ctx context.Context, c *clientv3.Client) {
	const name = "go/come"
	inside, waiting := contend(ctx, c, name), contend(ctx, c, name)
	check(<-inside.in == nil, "free")
	for i := 0; i < 30; i++ {
		last := contend(ctx, c, name)
		refused := make(chan error, 1)
		go func() {
			_, err := v3lockpb.NewLockClient(c.ActiveConnection()).Lock(ctx, &v3lockpb.LockRequest{Name: []byte(name), Lease: 987654321})
			refused <- err
		}()
		unlock(ctx, c, inside)
		err := <-refused
		check(err != nil && strings.Contains(err.Error(), "lease not found"), "no session: %v", err)
		check(<-waiting.in == nil, "the next is in")
		inside, waiting = waiting, last
	}
	unlock(ctx, c, inside)
	check(<-waiting.in == nil, "the last is in")
	unlock(ctx, c, waiting)
}

// Contenders through all nodes take one lock in turns, whatever happens to a node: nobody meets another one inside, and
// everybody gets all of its turns.
func turns(ctx context.Context, endpoints []*clientv3.Client) {
	const contenders, rounds = 9, 30
	var all sync.WaitGroup
	problems := make(chan string, contenders)
	for i := 0; i < contenders; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			if problem := takeTurns(ctx, endpoints, i, rounds); problem != "" {
				problems <- problem
			}
		}()
	}
	all.Wait()
	select {
	case problem := <-problems:
		check(false, "%s", problem)
	default:
	}
}

func takeTurns(ctx context.Context, endpoints []*clientv3.Client, number, rounds int) string {
	at := number
	// Tries at one node after the other until it is done.
	try := func(what string, do func(ctx context.Context, c *clientv3.Client) error) string {
		for {
			short, cancel := context.WithTimeout(ctx, 10*time.Second)
			err := do(short, endpoints[at%len(endpoints)])
			cancel()
			if err == nil {
				return ""
			}
			if ctx.Err() != nil {
				return fmt.Sprintf("%d: %s: %v", number, what, err)
			}
			at++
		}
	}
	var lease clientv3.LeaseID
	if problem := try("grant", func(ctx context.Context, c *clientv3.Client) error {
		granted, err := c.Grant(ctx, 120)
		if err == nil {
			lease = granted.ID
		}
		return err
	}); problem != "" {
		return problem
	}
	key := fmt.Sprintf("turns/lock/%x", lease)
	mine := ""
	for round := 0; round < rounds; round++ {
		mine = fmt.Sprintf("%d/%d", number, round)
		met := ""
		steps := []struct {
			name string
			do   func(ctx context.Context, c *clientv3.Client) error
		}{
			{"lock", func(ctx context.Context, c *clientv3.Client) error {
				_, err := v3lockpb.NewLockClient(c.ActiveConnection()).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("turns/lock"), Lease: int64(lease)})
				return err
			}},
			{"go in", func(ctx context.Context, c *clientv3.Client) error {
				// A repetition finds what it wrote itself.
				done, err := c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision("turns/inside"), "=", 0)).
					Then(clientv3.OpPut("turns/inside", mine)).Else(clientv3.OpGet("turns/inside")).Commit()
				if err == nil && !done.Succeeded {
					met = string(done.Responses[0].GetResponseRange().Kvs[0].Value)
				}
				return err
			}},
			{"go out", func(ctx context.Context, c *clientv3.Client) error {
				_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value("turns/inside"), "=", mine)).
					Then(clientv3.OpDelete("turns/inside"), clientv3.OpPut("turns/count", mine)).Commit()
				return err
			}},
			{"unlock", func(ctx context.Context, c *clientv3.Client) error {
				_, err := v3lockpb.NewLockClient(c.ActiveConnection()).Unlock(ctx, &v3lockpb.UnlockRequest{Key: []byte(key)})
				return err
			}},
		}
		for _, step := range steps {
			if problem := try(step.name, step.do); problem != "" {
				return problem
			}
			if met != "" && met != mine {
				return fmt.Sprintf("%s met %s inside", mine, met)
			}
		}
	}
	return ""
}
