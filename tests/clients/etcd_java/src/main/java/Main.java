// jetcd, unmodified, against the etcd API: keys, ranges, transactions, watches, leases, locks, elections, members.
// Arguments: endpoint, CA, client certificate and key, all PEM. Prints one line for what works; exits with 1 at a failure.
import io.etcd.jetcd.*;
import io.etcd.jetcd.kv.*;
import io.etcd.jetcd.op.*;
import io.etcd.jetcd.options.*;
import io.etcd.jetcd.watch.*;
import io.grpc.netty.GrpcSslContexts;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;

public class Main {
  static ByteSequence bytes(String text) { return ByteSequence.from(text, StandardCharsets.UTF_8); }
  static <T> T get(CompletableFuture<T> future) throws Exception { return future.get(20, TimeUnit.SECONDS); }
  static void check(boolean good, String what) {
    if (!good) throw new IllegalStateException("wrong: " + what);
    System.out.println("ok " + what);
  }

  public static void main(String[] args) throws Exception {
    var tls = GrpcSslContexts.forClient().trustManager(new File(args[1])).keyManager(new File(args[2]), new File(args[3])).build();
    try (Client client = Client.builder().endpoints(args[0]).sslContext(tls).build()) {
      keys(client.getKVClient());
      watch(client);
      leases(client);
      lock(client);
      election(client);
      check(get(client.getClusterClient().listMember()).getMembers().size() == 1, "members");
      check(get(client.getMaintenanceClient().statusMember(args[0])).getDbSize() > 0, "status");
    }
    System.out.println("done");
    System.exit(0);
  }

  static void keys(KV kv) throws Exception {
    for (int i = 0; i < 10; i++) get(kv.put(bytes("java/" + i), bytes("v" + i)));
    var one = get(kv.get(bytes("java/3"))).getKvs().get(0);
    check(one.getValue().toString().equals("v3") && one.getVersion() == 1, "get");
    var prefix = GetOption.builder().isPrefix(true).withSortField(GetOption.SortTarget.KEY)
        .withSortOrder(GetOption.SortOrder.DESCEND).withLimit(4).build();
    var some = get(kv.get(bytes("java/"), prefix));
    check(some.getKvs().size() == 4 && some.getKvs().get(0).getKey().toString().equals("java/9") && some.isMore(), "range");
    var before = get(kv.put(bytes("java/3"), bytes("new"), PutOption.builder().withPrevKV().build())).getPrevKv();
    check(before.getValue().toString().equals("v3"), "previous value");
    var old = get(kv.get(bytes("java/3"), GetOption.builder().withRevision(one.getModRevision()).build()));
    check(old.getKvs().get(0).getValue().toString().equals("v3"), "history");
    var txn = get(kv.txn().If(new Cmp(bytes("java/3"), Cmp.Op.EQUAL, CmpTarget.value(bytes("new"))))
        .Then(Op.put(bytes("java/t"), bytes("then"), PutOption.DEFAULT)).Else(Op.delete(bytes("java/0"), DeleteOption.DEFAULT)).commit());
    check(txn.isSucceeded() && get(kv.get(bytes("java/t"))).getCount() == 1, "transaction");
    check(get(kv.delete(bytes("java/"), DeleteOption.builder().isPrefix(true).build())).getDeleted() == 11, "delete");
  }

  static void watch(Client client) throws Exception {
    var seen = new LinkedBlockingQueue<WatchEvent>();
    var option = WatchOption.builder().isPrefix(true).withPrevKV(true).build();
    try (Watch.Watcher watcher = client.getWatchClient().watch(bytes("seen/"), option, r -> seen.addAll(r.getEvents()))) {
      // The watch is there when the first event comes: keys are written until then.
      WatchEvent first = null;
      for (int i = 0; first == null && i < 100; i++) {
        get(client.getKVClient().put(bytes("seen/a"), bytes("" + i)));
        first = seen.poll(200, TimeUnit.MILLISECONDS);
      }
      check(first != null && first.getEventType() == WatchEvent.EventType.PUT, "watch of a put");
      get(client.getKVClient().delete(bytes("seen/a")));
      WatchEvent last = first;
      while (last != null && last.getEventType() != WatchEvent.EventType.DELETE) last = seen.poll(10, TimeUnit.SECONDS);
      check(last != null && last.getPrevKV().getKey().toString().equals("seen/a"), "watch of a deletion");
    }
  }

  static void leases(Client client) throws Exception {
    long id = get(client.getLeaseClient().grant(30)).getID();
    get(client.getKVClient().put(bytes("leased"), bytes("x"), PutOption.builder().withLeaseId(id).build()));
    check(get(client.getLeaseClient().keepAliveOnce(id)).getTTL() > 0, "keep alive");
    var left = get(client.getLeaseClient().timeToLive(id, LeaseOption.builder().withAttachedKeys().build()));
    check(left.getTTL() > 0 && left.getKeys().size() == 1, "time to live");
    get(client.getLeaseClient().revoke(id));
    check(get(client.getKVClient().get(bytes("leased"))).getCount() == 0, "revoke");
  }

  static void lock(Client client) throws Exception {
    long one = get(client.getLeaseClient().grant(30)).getID(), two = get(client.getLeaseClient().grant(30)).getID();
    var held = get(client.getLockClient().lock(bytes("java-lock"), one)).getKey();
    var waits = client.getLockClient().lock(bytes("java-lock"), two);
    boolean early = true;
    try {
      waits.get(500, TimeUnit.MILLISECONDS);
    } catch (TimeoutException expected) {
      early = false;
    }
    check(!early, "a lock excludes");
    get(client.getLockClient().unlock(held));
    get(client.getLockClient().unlock(get(waits).getKey()));
    check(true, "a lock goes on");
  }

  static void election(Client client) throws Exception {
    long lease = get(client.getLeaseClient().grant(30)).getID();
    var leader = get(client.getElectionClient().campaign(bytes("java-election"), lease, bytes("me"))).getLeader();
    check(get(client.getElectionClient().leader(bytes("java-election"))).getKv().getValue().toString().equals("me"), "leader");
    get(client.getElectionClient().resign(leader));
    check(true, "resign");
  }
}
