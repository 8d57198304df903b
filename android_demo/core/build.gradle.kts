// Not tried where this was written: see settings.gradle.kts. Maven has its tests.
plugins {
    alias(libs.plugins.kotlin.jvm)
}

kotlin {
    jvmToolchain(17)
}

dependencies {
    api(libs.okhttp)
    api(libs.coroutines)
    implementation(libs.serialization)
    // The Java API alone: an app takes onnxruntime-android, a program on the JVM takes onnxruntime.
    compileOnly(libs.onnxruntime)
    testImplementation(libs.onnxruntime)
    testImplementation(libs.junit)
}

tasks.test {
    useJUnitPlatform()
    systemProperty("draftlink.golden", rootDir.resolve("../tests/golden").path)
}
