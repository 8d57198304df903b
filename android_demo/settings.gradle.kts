// For Android Studio. Not tried where this was written: Gradle's plugin for Android and its tools are
// on Google's repository, which was not reached there. Maven's build (pom.xml) is the one that is tested.
pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode.set(RepositoriesMode.FAIL_ON_PROJECT_REPOS)
    repositories {
        google() // onnxruntime-android and okhttp are on Maven Central; Android's own tools are here
        mavenCentral()
    }
}

rootProject.name = "draftlink-android"
include(":core")
include(":app-model")
include(":app")
