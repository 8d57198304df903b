// Not tried where this was written: see settings.gradle.kts. Maven has its tests.
plugins {
    alias(libs.plugins.kotlin.jvm)
}

kotlin {
    jvmToolchain(17)
}

dependencies {
    api(project(":core"))
    implementation(libs.serialization)
    testImplementation(libs.onnxruntime)
    testImplementation(libs.junit)
}

tasks.test {
    useJUnitPlatform()
}
