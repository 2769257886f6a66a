// What programs do with etcd's Go library, against any server that speaks its API:
// etcd-go-client CASE URL,... CA CERT KEY.
// Exits with 1 and says what was wrong.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

func check(ok bool, format string, args ...any) {
	if !ok {
		panic(fmt.Sprintf(format, args...))
	}
}

func must[T any](value T, err error) T {
	check(err == nil, "%v", err)
	return value
}

func connect(url, ca, cert, key string) *clientv3.Client {
	pool := x509.NewCertPool()
	check(pool.AppendCertsFromPEM(must(os.ReadFile(ca))), "no authority in %s", ca)
	pair := must(tls.LoadX509KeyPair(cert, key))
	return must(clientv3.New(clientv3.Config{
		Endpoints:   []string{url},
		DialTimeout: 10 * time.Second,
		TLS:         &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
	}))
}

func keys(ctx context.Context, c *clientv3.Client) {
	for i := 0; i < 20; i++ {
		must(c.Put(ctx, fmt.Sprintf("go/kv/%02d", i), fmt.Sprint(i)))
	}
	got := must(c.Get(ctx, "go/kv/", clientv3.WithPrefix(), clientv3.WithLimit(7)))
	check(len(got.Kvs) == 7 && got.More && got.Count == 20, "limit: %d of %d, more %v", len(got.Kvs), got.Count, got.More)
	got = must(c.Get(ctx, "go/kv/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend)))
	check(string(got.Kvs[0].Key) == "go/kv/19", "sorted: %s", got.Kvs[0].Key)
	old := got.Header.Revision
	del := must(c.Delete(ctx, "go/kv/05", clientv3.WithPrevKV()))
	check(del.Deleted == 1 && string(del.PrevKvs[0].Value) == "5", "deleted: %v", del)
	got = must(c.Get(ctx, "go/kv/05", clientv3.WithRev(old)))
	check(len(got.Kvs) == 1, "the past has the key: %v", got)
	txn := must(c.Txn(ctx).If(clientv3.Compare(clientv3.Version("go/kv/05"), "=", 0)).
		Then(clientv3.OpPut("go/kv/05", "again"), clientv3.OpGet("go/kv/05"),
			clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value("go/kv/06"), "=", "6")},
				[]clientv3.Op{clientv3.OpDelete("go/kv/06")}, nil)).
		Else(clientv3.OpGet("go/kv/05")).Commit())
	check(txn.Succeeded && len(txn.Responses) == 3, "transaction: %v", txn)
	check(string(txn.Responses[1].GetResponseRange().Kvs[0].Value) == "again", "a read inside sees the write: %v", txn)
	check(txn.Responses[2].GetResponseTxn().Succeeded, "the inner one: %v", txn)
	_, err := c.Get(ctx, "x", clientv3.WithRev(1<<40))
	check(errors.Is(err, rpctypes.ErrFutureRev), "future: %v", err)
	_, err = c.Put(ctx, "", "x")
	check(errors.Is(err, rpctypes.ErrEmptyKey), "empty key: %v", err)
	_, err = c.Put(ctx, "x", "y", clientv3.WithLease(12345))
	check(errors.Is(err, rpctypes.ErrLeaseNotFound), "lease: %v", err)
	_, err = c.Put(ctx, "go/none", "", clientv3.WithIgnoreValue())
	check(errors.Is(err, rpctypes.ErrKeyNotFound), "ignore value: %v", err)
}

func watches(ctx context.Context, c *clientv3.Client) {
	first := must(c.Put(ctx, "go/w/a", "1")).Header.Revision
	must(c.Put(ctx, "go/w/b", "2"))
	past := c.Watch(ctx, "go/w/", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithPrevKV())
	live := c.Watch(ctx, "go/w/c", clientv3.WithFilterDelete(), clientv3.WithCreatedNotify(), clientv3.WithFragment())
	check((<-live).Created, "the watch tells that it is made")
	seen := 0
	for seen < 2 {
		seen += len((<-past).Events)
	}
	must(c.Txn(ctx).Then(clientv3.OpPut("go/w/a", "3"), clientv3.OpDelete("go/w/b"), clientv3.OpPut("go/w/c", "4")).Commit())
	r := <-past
	check(len(r.Events) == 3, "one revision comes at once: %v", r.Events)
	check(string(r.Events[0].PrevKv.Value) == "1", "with what was before: %v", r.Events[0])
	check(string((<-live).Events[0].Kv.Value) == "4", "the other watch has its key")
	revision := must(c.Put(ctx, "go/elsewhere", "x")).Header.Revision
	check(c.RequestProgress(ctx) == nil, "progress can be asked for")
	p := <-past
	check(p.IsProgressNotify() && p.Header.Revision >= revision, "progress: %v", p)
	must(c.Compact(ctx, revision))
	gone := <-c.Watch(ctx, "go/w/", clientv3.WithPrefix(), clientv3.WithRev(first))
	check(gone.Canceled && errors.Is(gone.Err(), rpctypes.ErrCompacted) && gone.CompactRevision == revision, "compacted: %v", gone)
}

func leases(ctx context.Context, c *clientv3.Client) {
	lease := must(c.Grant(ctx, 2))
	must(c.Put(ctx, "go/l", "x", clientv3.WithLease(lease.ID)))
	kept, cancel := context.WithCancel(ctx)
	answers := must(c.KeepAlive(kept, lease.ID))
	until := time.Now().Add(4 * time.Second)
	for time.Now().Before(until) {
		check((<-answers) != nil, "the lease is kept")
	}
	check(len(must(c.Get(ctx, "go/l")).Kvs) == 1, "it outlives its TTL while it is kept")
	cancel()
	ended := c.Watch(ctx, "go/l")
	e := <-ended
	check(len(e.Events) == 1 && e.Events[0].Type == clientv3.EventTypeDelete, "its end deletes the key: %v", e)
	ttl := must(c.TimeToLive(ctx, lease.ID))
	check(ttl.TTL == -1, "ended: %v", ttl)
	_, err := c.KeepAliveOnce(ctx, lease.ID)
	check(errors.Is(err, rpctypes.ErrLeaseNotFound), "kept: %v", err)
	chosen := must(c.Lease.Grant(ctx, 60))
	must(c.Revoke(ctx, chosen.ID))
	_, err = c.Revoke(ctx, chosen.ID)
	check(errors.Is(err, rpctypes.ErrLeaseNotFound), "revoked twice: %v", err)
}

func mutexes(ctx context.Context, c *clientv3.Client) {
	var inside, count int
	var guard sync.Mutex
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			session := must(concurrency.NewSession(c, concurrency.WithTTL(10)))
			defer session.Close()
			mutex := concurrency.NewMutex(session, "go/mutex")
			for j := 0; j < 5; j++ {
				check(mutex.Lock(ctx) == nil, "locked")
				guard.Lock()
				inside++
				check(inside == 1, "%d are inside", inside)
				guard.Unlock()
				count++
				guard.Lock()
				inside--
				guard.Unlock()
				check(mutex.Unlock(ctx) == nil, "unlocked")
			}
		}()
	}
	all.Wait()
	check(count == 40, "%d turns", count)
	a := must(concurrency.NewSession(c))
	b := must(concurrency.NewSession(c))
	one, two := concurrency.NewMutex(a, "go/try"), concurrency.NewMutex(b, "go/try")
	check(one.TryLock(ctx) == nil, "free")
	check(errors.Is(two.TryLock(ctx), concurrency.ErrLocked), "taken")
	check(a.Close() == nil, "the end of a session frees its locks")
	check(two.Lock(ctx) == nil, "free again")
}

func elections(ctx context.Context, c *clientv3.Client) {
	a := must(concurrency.NewSession(c, concurrency.WithTTL(10)))
	b := must(concurrency.NewSession(c, concurrency.WithTTL(10)))
	first, second := concurrency.NewElection(a, "go/election"), concurrency.NewElection(b, "go/election")
	check(first.Campaign(ctx, "first") == nil, "elected")
	check(string(must(first.Leader(ctx)).Kvs[0].Value) == "first", "leads")
	won := make(chan error)
	go func() { won <- second.Campaign(ctx, "second") }()
	observed := second.Observe(ctx)
	check(string((<-observed).Kvs[0].Value) == "first", "observed")
	check(first.Proclaim(ctx, "first again") == nil, "proclaimed")
	check(string((<-observed).Kvs[0].Value) == "first again", "observed")
	check(first.Resign(ctx) == nil, "resigned")
	check(<-won == nil, "the next one leads")
	check(string((<-observed).Kvs[0].Value) == "second", "observed")
	_, err := concurrency.NewElection(a, "go/nobody").Leader(ctx)
	check(errors.Is(err, concurrency.ErrElectionNoLeader), "nobody: %v", err)
}

func stm(ctx context.Context, c *clientv3.Client) {
	for i := 0; i < 4; i++ {
		must(c.Put(ctx, fmt.Sprintf("go/stm/%d", i), "100"))
	}
	var all sync.WaitGroup
	for i := 0; i < 6; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for j := 0; j < 5; j++ {
				must(concurrency.NewSTM(c, func(s concurrency.STM) error {
					from, to := fmt.Sprintf("go/stm/%d", (i+j)%4), fmt.Sprintf("go/stm/%d", (i+j+1)%4)
					var x, y int
					fmt.Sscan(s.Get(from), &x)
					fmt.Sscan(s.Get(to), &y)
					s.Put(from, fmt.Sprint(x-1))
					s.Put(to, fmt.Sprint(y+1))
					return nil
				}))
			}
		}()
	}
	all.Wait()
	sum := 0
	for _, kv := range must(c.Get(ctx, "go/stm/", clientv3.WithPrefix())).Kvs {
		var x int
		fmt.Sscan(string(kv.Value), &x)
		sum += x
	}
	check(sum == 400, "the sum is %d", sum)
}

func services(ctx context.Context, c *clientv3.Client) {
	conn := c.ActiveConnection()
	lock := v3lockpb.NewLockClient(conn)
	one, two := must(c.Grant(ctx, 60)).ID, must(c.Grant(ctx, 60)).ID
	held := must(lock.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("go/lock"), Lease: int64(one)}))
	check(strings.HasPrefix(string(held.Key), "go/lock/"), "key: %s", held.Key)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	_, err := lock.Lock(short, &v3lockpb.LockRequest{Name: []byte("go/lock"), Lease: int64(two)})
	cancel()
	check(err != nil, "it is held")
	passed := make(chan error)
	go func() {
		_, err := lock.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("go/lock"), Lease: int64(two)})
		passed <- err
	}()
	must(lock.Unlock(ctx, &v3lockpb.UnlockRequest{Key: held.Key}))
	check(<-passed == nil, "it is passed on")

	election := v3electionpb.NewElectionClient(conn)
	leader := must(election.Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte("go/e"), Lease: int64(one), Value: []byte("a")})).Leader
	observer := must(election.Observe(ctx, &v3electionpb.LeaderRequest{Name: []byte("go/e")}))
	check(string(must(observer.Recv()).Kv.Value) == "a", "observed")
	must(election.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: leader, Value: []byte("b")}))
	check(string(must(observer.Recv()).Kv.Value) == "b", "observed")
	check(string(must(election.Leader(ctx, &v3electionpb.LeaderRequest{Name: []byte("go/e")})).Kv.Value) == "b", "leads")
	must(election.Resign(ctx, &v3electionpb.ResignRequest{Leader: leader}))
	_, err = election.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: leader, Value: []byte("c")})
	check(err != nil, "who has resigned proclaims nothing")
}

func main() {
	check(len(os.Args) == 6, "usage: etcd-go-client CASE URL CA CERT KEY")
	defer func() {
		if problem := recover(); problem != nil {
			fmt.Fprintln(os.Stderr, problem)
			os.Exit(1)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var endpoints []*clientv3.Client
	for _, url := range strings.Split(os.Args[2], ",") {
		endpoints = append(endpoints, connect(url, os.Args[3], os.Args[4], os.Args[5]))
	}
	c := endpoints[0]
	cases := map[string]func(context.Context, *clientv3.Client){"kv": keys, "watch": watches, "lease": leases,
		"mutex": mutexes, "election": elections, "stm": stm, "services": services, "queues": queues,
		"turns": func(ctx context.Context, _ *clientv3.Client) { turns(ctx, endpoints) }}
	run, known := cases[os.Args[1]]
	check(known, "no case %s", os.Args[1])
	run(ctx, c)
}
