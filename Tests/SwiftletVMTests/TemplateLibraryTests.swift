// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import SwiftletTestSupport
import Testing

@testable import SwiftletVM

/// Loads and builds of templates, without QEMU and on a clock that stands still.
@Suite(.timeLimit(.minutes(1))) struct TemplateLibraryTests {
    private let time = ControlledTime()
    private let source = FakeTemplateSource()
    private let library: TemplateLibrary
    private let shapes = (1...3).map { VMShape(memoryMB: 128 * $0, vcpuCount: 1) }

    init() {
        library = TemplateLibrary(source: source, time: time, logger: .silent)
    }

    /// Submits to tasks that the test awaits.
    private func prepare(_ shape: VMShape) -> Task<Void, Never>? {
        var task: Task<Void, Never>?
        library.prepare(shape) { work in task = Task { await work() } }
        return task
    }

    private func template(_ shape: VMShape) async throws -> LoadedTemplate? {
        try await library.template(for: shape) { _ in Issue.record("A build was submitted") }
    }

    @Test func aTemplateThatIsForgottenWhileItLoadsLeavesNoSealedMemory() async throws {
        source.store("stored", shapes[0])
        let gate = Gate()
        source.hold(at: gate)
        let load = Task { try await template(shapes[0]) != nil }
        await gate.arrived()
        #expect(library.isComing(shapes[0]))
        library.forget(shapes[0])
        gate.open()
        // The caller that loads it may use it.
        #expect(try await load.value)
        #expect(!library.isReady(shapes[0]) && source.loadedCount == 0)
    }

    @Test func aTemplateThatIsForgottenWhileItIsBuiltLeavesNoSealedMemory() async throws {
        let gate = Gate()
        source.hold(at: gate)
        let build = prepare(shapes[0])
        await gate.arrived()
        library.forget(shapes[0])
        gate.open()
        await build?.value
        #expect(!library.isReady(shapes[0]) && source.loadedCount == 0)
    }

    @Test func aLoadOfAForgottenTemplateDoesNotReplaceALaterOne() async throws {
        source.store("stored", shapes[0])
        let gate = Gate()
        source.hold(at: gate)
        let first = Task { try await template(shapes[0]) }
        await gate.arrived()
        library.forget(shapes[0])
        let second = Task { try await template(shapes[0]) }
        await gate.arrived()
        gate.open()
        gate.open()
        let loaded = [try await first.value, try await second.value]
        let ready = try #require(try await template(shapes[0]))
        #expect(loaded.contains { $0 === ready })
        library.forget(shapes[0])
        #expect(source.loadedCount == 2)
        withExtendedLifetime(loaded) {}
    }

    @Test func buildsRunOneAfterAnother() async throws {
        let gate = Gate()
        source.hold(at: gate)
        let builds = shapes.map(prepare)
        // A second request for a shape submits nothing.
        #expect(prepare(shapes[0]) == nil)
        for number in 1...3 {
            await gate.arrived()
            #expect(source.builds.count == number)
            gate.open()
        }
        for build in builds { await build?.value }
        #expect(source.maximumBuilding == 1)
        for shape in shapes { #expect(library.isReady(shape)) }
    }

    @Test func aBuildThatIsNotWantedAnyMoreWhenItsTurnComesIsGivenUp() async throws {
        let gate = Gate()
        source.hold(at: gate)
        let first = prepare(shapes[0])
        await gate.arrived()
        let second = prepare(shapes[1])
        library.forget(shapes[1])
        gate.open()
        await first?.value
        await second?.value
        #expect(source.builds == [shapes[0]])
        #expect(library.isReady(shapes[0]) && !library.isReady(shapes[1]))
    }

    @Test func aFailedBuildIsTriedAgainAfterAMinute() async throws {
        source.failBuilds(true)
        await prepare(shapes[0])?.value
        #expect(try await template(shapes[0]) == nil)
        time.advance(by: .seconds(59))
        #expect(prepare(shapes[0]) == nil)
        source.failBuilds(false)
        time.advance(by: .seconds(1))
        await prepare(shapes[0])?.value
        #expect(source.builds.count == 2 && library.isReady(shapes[0]))
    }

    @Test func aTemplateThatDoesNotRestoreIsRemovedOnceAndBuiltAgain() async throws {
        source.store("intact", shapes[0])
        let loaded = try #require(try await template(shapes[0]))
        // As several clones of it fail.
        for _ in 0..<3 { await library.discard(loaded, of: shapes[0], because: FakeMachineSource.Failure()) }
        #expect(source.removed == ["intact"])
        await prepare(shapes[0])?.value
        let rebuilt = try #require(try await template(shapes[0]))
        #expect(rebuilt.template.name == "built-1")
        // A replacement that fails at once is not replaced at once.
        await library.discard(rebuilt, of: shapes[0], because: FakeMachineSource.Failure())
        #expect(source.removed == ["intact", "built-1"])
        #expect(prepare(shapes[0]) == nil)
        time.advance(by: .seconds(60))
        #expect(prepare(shapes[0]) != nil)
    }
}

extension Logger {
    static var silent: Logger { Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }) }
}
