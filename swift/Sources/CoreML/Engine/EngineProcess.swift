import Foundation
import Glibc

/// The engine as a child process, one socket to it, and what it printed.
///
/// A socket and not a pair of pipes, because only a socket can be written to without the risk of
/// SIGPIPE and without changing how this process takes signals.
final class EngineProcess: Sendable {
  let identifier: pid_t
  private let socket: Int32
  private let log: Int32

  /// Starts `python -m fluxvae.mil.serve`. Throws `MLModelError.io` when that is impossible.
  init(python: String) throws {
    var ends: [Int32] = [-1, -1]
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else { throw Self.failure("socketpair", errno) }
    defer { close(ends[1]) }
    log = Self.openLog()
    let (pid, code) = Self.spawn(python, input: ends[1], log: log)
    guard code == 0 else {
      close(ends[0])
      if log >= 0 { close(log) }
      throw Self.failure("'\(python)'", code)
    }
    identifier = pid
    socket = ends[0]
  }

  deinit {
    close(socket)
    if log >= 0 { close(log) }
  }

  /// Writes all bytes; false when the engine has gone.
  func write(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var rest = bytes
    while let base = rest.baseAddress, rest.count > 0 {
      let sent = send(socket, base, rest.count, Int32(MSG_NOSIGNAL))
      if sent < 0 && errno == EINTR { continue }
      guard sent > 0 else { return false }
      rest = UnsafeRawBufferPointer(rebasing: rest[sent...])
    }
    return true
  }

  /// Fills the buffer; false when the engine has gone before.
  func read(into bytes: UnsafeMutableRawBufferPointer) -> Bool {
    var rest = bytes
    while let base = rest.baseAddress, rest.count > 0 {
      let count = recv(socket, base, rest.count, 0)
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { return false }
      rest = UnsafeMutableRawBufferPointer(rebasing: rest[count...])
    }
    return true
  }

  /// Ends the process if it still runs, and says how it ended, in words.
  func finish() -> String {
    shutdown(socket, Int32(SHUT_RDWR))
    var status: Int32 = 0
    var waited = waitpid(identifier, &status, WNOHANG)
    for _ in 0..<50 where waited == 0 {  // it has been told to end: half a second for that
      usleep(10_000)
      waited = waitpid(identifier, &status, WNOHANG)
    }
    if waited == 0 {
      kill(identifier, SIGKILL)
      waited = waitpid(identifier, &status, 0)
    }
    guard waited == identifier else { return "ended" }
    let signal = status & 0x7F
    return signal == 0
      ? "ended with exit code \((status >> 8) & 0xFF)" : "was ended by signal \(signal)"
  }

  /// The last line that the process printed to stderr, or nil.
  func lastWords() -> String? {
    guard log >= 0 else { return nil }
    let end = lseek(log, 0, SEEK_END)
    let start = max(0, end - 4096)
    var bytes = [UInt8](repeating: 0, count: Int(end - start))
    let count = pread(log, &bytes, bytes.count, start)
    guard count > 0 else { return nil }
    return String(decoding: bytes[..<count], as: UTF8.self)
      .split(whereSeparator: \.isNewline).last.map(String.init)
  }

  /// An unnamed file for what the engine prints, so that its noise stays out of ours.
  private static func openLog() -> Int32 {
    var template = Array((NSTemporaryDirectory() + "/coreml-engine-XXXXXX").utf8CString)
    let file = mkstemp(&template)
    if file >= 0 {
      unlink(template)
      _ = fcntl(file, F_SETFD, FD_CLOEXEC)
    }
    return file
  }

  private static func spawn(_ python: String, input: Int32, log: Int32) -> (pid_t, Int32) {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, input, 0)
    posix_spawn_file_actions_adddup2(&actions, input, 1)
    if log >= 0 { posix_spawn_file_actions_adddup2(&actions, log, 2) }
    let environment = ProcessInfo.processInfo.environment.map { "\($0.key)=\($0.value)" }
    let command = [python, "-m", "fluxvae.mil.serve"]
    var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
    var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup($0) } + [nil]
    defer { for text in arguments + variables { free(text) } }
    var pid: pid_t = 0
    let code = posix_spawnp(&pid, python, &actions, nil, &arguments, &variables)
    return (pid, code)
  }

  private static func failure(_ what: String, _ code: Int32) -> MLModelError {
    MLModelError(
      .io,
      "The engine could not be started: \(what): \(String(cString: strerror(code))). Set "
        + "FLUXVAE_PYTHON to a Python that has fluxvae installed.")
  }
}
