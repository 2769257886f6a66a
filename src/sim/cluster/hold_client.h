// What clients that hold something by a lease have in common, a lock or the leadership of an election: they rely on it
// for as long as they may, renew it, give it up, or fall silent, so that it has to come free by its time.
//
// A subclass says what is asked for, and how; the checkers are told of every hold here.
#pragma once

#include <set>
#include <string>

#include "sim/cluster/sim_client.h"

namespace uccp::sim {

class HoldClient : public SimClient {
 public:
  void start() final;
  bool finished() const final { return left_ == 0; }

 protected:
  struct Habits {
    std::string what;     // as the checkers name it: "locks"
    int64_t hold_us_max;  // until it renews or gives up
    int64_t rest_us_max;  // until it asks again
    double falls_silent;  // as long as not everything is healed
    double renews;
    int renewals_max;
    std::set<Code> over;     // answers to a renewal: it holds nothing any more
    std::set<Code> may_end;  // answers to giving up that are no error
  };
  HoldClient(SimCluster& cluster, std::string name, uint64_t operations, Habits habits);

  // Asks for one, until it calls hold() or completed().
  virtual void begin() = 0;
  virtual ServiceCall renewal() = 0;
  virtual ServiceCall release() = 0;
  // An answer to a renewal: whether it holds what it waits for.
  virtual bool still_holds(const std::string& response) = 0;

  // Every hold has an owner of its own, so that two of one client are told apart.
  void begin_hold(std::string thing, int64_t ttl_ms);
  // It has it, by a request that was sent at `called_us`.
  void relies(int64_t called_us);
  void hold();
  void give_up();
  void completed();
  // What is no answer to its request.
  void wrong(const std::string& what);

  static const call::Method* method(std::string_view rpc);

  std::string thing_;
  std::string owner_;
  std::string lease_;
  int64_t ttl_ms_ = 0;

 private:
  void next();
  void renew();

  const Habits habits_;
  uint64_t left_;
  uint64_t holds_ = 0;
  int renewals_ = 0;
};

}  // namespace uccp::sim
